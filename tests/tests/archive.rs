//! The archive: what was said and who was there is found again, once, whatever happens to archivers and their database.
//!
//! Each test opens with the promise it is about and how it is provoked. On services it is skipped, and says so, where
//! they are missing; `ROOST_REQUIRE_SERVICES=1` makes that a failure.

#[path = "archive/bugs.rs"]
mod bugs;
#[path = "archive/events.rs"]
mod events;
#[path = "archive/faults.rs"]
mod faults;
#[path = "archive/history.rs"]
mod history;
#[path = "archive/shares.rs"]
mod shares;

roost_tests::on_each_backend! {
    history::what_left_the_hot_window_is_in_the_history_through_the_point_that_was_named,
    history::the_history_is_for_those_who_may_read_the_stream,
    history::who_was_there_when_is_known_afterwards,
    history::who_may_not_ask_takes_no_place_of_those_who_may,
    history::what_cannot_be_kept_is_a_dead_letter_that_operators_see,
    events::a_client_sees_its_events_with_their_results,
    events::what_a_processor_writes_wrongly_is_a_dead_letter_and_holds_up_nothing,
}
