"""What goes wrong while a run goes on, noticed: slowness, standstill, numbers gone bad."""
