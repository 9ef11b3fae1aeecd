"""The window among other programs: one of it, its tray icon, the session's end, sleep."""
