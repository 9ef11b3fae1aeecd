"""All faults, in the order of the table. The quick ones are listed in `test_faults.py`."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults import (
    disk_faults,
    merge_faults,
    message_faults,
    outside_faults,
    power_faults,
    window_faults,
    worker_faults,
)
from tests.faults.lab import Lab

Fault = Callable[[Lab], str]

ALL: tuple[Fault, ...] = (
    worker_faults.killed_at_20_random_steps,
    worker_faults.segmentation_fault,
    worker_faults.ended_by_the_system_for_memory,
    worker_faults.exit_in_the_midst,
    worker_faults.hang,
    window_faults.hang_told_by_the_window,
    worker_faults.told_to_end_by_the_system,
    worker_faults.told_twice_to_end,
    worker_faults.computer_asleep,
    worker_faults.loss_that_is_no_number,
    worker_faults.card_out_of_memory,
    worker_faults.card_out_of_memory_in_a_step,
    worker_faults.computer_out_of_memory,
    worker_faults.computer_out_of_memory_in_a_step,
    worker_faults.error_of_the_card,
    worker_faults.stop_while_loading,
    worker_faults.stop_while_tokenising,
    worker_faults.stop_while_saving,
    worker_faults.stop_while_testing,
    worker_faults.clock_set_back,
    worker_faults.two_workers_for_one_run,
    worker_faults.two_runs_on_one_card,
    message_faults.killed_in_mid_message,
    message_faults.killed_in_mid_line,
    message_faults.bad_events,
    disk_faults.killed_at_every_fsync,
    disk_faults.killed_at_every_rename,
    disk_faults.disk_full_at_every_fsync,
    disk_faults.disk_error_at_every_fsync,
    disk_faults.disk_error_at_every_rename,
    disk_faults.disk_full_at_a_checkpoint,
    disk_faults.disk_full_and_given_up,
    disk_faults.disk_full_and_another_chosen,
    disk_faults.file_size_limit,
    disk_faults.read_only_folder,
    disk_faults.vanished_folder,
    disk_faults.one_flipped_byte_in_each_file,
    disk_faults.each_file_missing,
    disk_faults.each_file_cut_short,
    power_faults.power_cut,
    power_faults.power_cut_at_the_first_checkpoint,
    power_faults.power_cut_at_the_end,
    disk_faults.torn_journal,
    disk_faults.garbage_in_the_journal,
    merge_faults.merge_killed_at_every_lasting_call,
    merge_faults.merge_on_a_disk_full_at_every_fsync,
    merge_faults.merge_on_a_failing_disk_at_every_rename,
    merge_faults.merge_killed_between_files,
    merge_faults.power_cut_while_merging,
    merge_faults.disk_full_between_files,
    merge_faults.disk_full_while_merging,
    merge_faults.one_flipped_byte_before_a_merge,
    merge_faults.one_flipped_byte_in_the_base_before_a_merge,
    outside_faults.base_model_deleted,
    outside_faults.data_deleted,
    outside_faults.data_changed,
    outside_faults.base_model_changed,
    outside_faults.spaces_and_emoji_in_paths,
    outside_faults.decimal_comma,
    outside_faults.no_home_to_write_to,
    window_faults.window_killed,
    window_faults.window_closed_in_each_of_three_ways,
    window_faults.window_ended_by_the_system,
    window_faults.computer_put_to_sleep,
    window_faults.two_windows,
)


def title(fault: Fault) -> str:
    """Its name in words."""
    return fault.__name__.replace("_", " ")
