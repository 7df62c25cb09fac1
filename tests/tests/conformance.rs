//! What clients and operators may rely on, against a whole cluster: the protocol over real sockets, on the
//! embedded back end and on Kafka and Redis.
//!
//! Each test opens with the promise it is about and how it is provoked. On services it is skipped, and says so,
//! where they are missing; `ROOST_REQUIRE_SERVICES=1` makes that a failure.

#[path = "conformance/acknowledgements.rs"]
mod acknowledgements;
#[path = "conformance/bad_input.rs"]
mod bad_input;
#[path = "conformance/configuration.rs"]
mod configuration;
#[path = "conformance/elasticity.rs"]
mod elasticity;
#[path = "conformance/events.rs"]
mod events;
#[path = "conformance/held_log.rs"]
mod held_log;
#[path = "conformance/messages.rs"]
mod messages;
#[path = "conformance/operations.rs"]
mod operations;
#[path = "conformance/places.rs"]
mod places;
#[path = "conformance/presence.rs"]
mod presence;
#[path = "conformance/records.rs"]
mod records;
#[path = "conformance/server_api.rs"]
mod server_api;
#[path = "conformance/sessions.rs"]
mod sessions;
#[path = "conformance/watching.rs"]
mod watching;

#[path = "conformance/rooms.rs"]
mod rooms;

use std::ops::RangeInclusive;

use roost_tests::wire::Wire;
use serde_json::{Value, json};

/// Sends in flight at once: less than a session may have unanswered.
const IN_FLIGHT: u64 = 100;

/// Sends one message for each number, as `{"i": number}` and some bytes of padding, and waits until all are
/// confirmed.
async fn pump(wire: &mut Wire, to: &str, numbers: RangeInclusive<u64>, padding: usize) {
    let pad = "x".repeat(padding);
    let (mut next, last) = numbers.into_inner();
    while next <= last {
        let batch = next..=last.min(next + IN_FLIGHT - 1);
        let frames = batch
            .clone()
            .map(|i| json!({"type": "send", "id": format!("m-{i}"), "to": to, "data": {"i": i, "pad": pad}}));
        wire.send_all(frames).await;
        next = batch.end() + 1;
        for i in batch {
            let reply = wire.reply(&format!("m-{i}")).await;
            assert!(reply["ok"]["at"].is_string(), "{reply}");
        }
    }
}

fn cursor_of(message: &Value) -> Value {
    json!({"generation": message["generation"], "offset": message["offset"]})
}

roost_tests::on_each_backend! {
    messages::two_users_on_different_nodes_exchange_messages_both_ways_with_replies,
    messages::sends_of_one_session_arrive_in_order_without_waiting_for_replies,
    messages::a_reconnect_with_the_cursor_gets_exactly_what_was_missed_in_order,
    messages::a_known_device_without_a_cursor_resumes_from_what_it_acked,
    messages::a_new_device_starts_at_the_tail,
    messages::a_repeated_id_gets_the_same_answer_and_is_not_delivered_twice,
    messages::every_session_of_a_user_gets_the_message,
    messages::a_cursor_that_cannot_be_honoured_is_answered_recovered_false,
    messages::a_reader_that_pauses_within_the_hot_window_gets_everything_in_order,
    messages::a_reader_that_sleeps_through_the_hot_window_is_told,
    messages::a_send_right_behind_connect_is_answered_and_keeps_its_place,
    messages::a_client_that_closes_is_answered_with_a_close_frame,
    places::a_node_that_is_not_home_names_the_one_that_is,
    places::while_a_user_has_no_home_route_says_when_to_come_again,
    places::a_planned_stop_tells_sessions_where_to_go_and_loses_nothing,
    places::the_last_node_that_stops_gives_everything_up_and_tells_its_sessions_to_come_again,
    places::after_a_crash_of_a_node_nothing_that_was_acknowledged_is_lost,
    acknowledgements::what_no_device_acknowledges_in_time_is_reported_once,
    acknowledgements::what_was_due_when_its_home_died_is_reported_once,
    acknowledgements::what_was_due_when_its_home_stopped_is_reported_once,
    acknowledgements::what_is_acknowledged_between_two_homes_counts,
    acknowledgements::a_sender_who_asks_is_told_what_becomes_of_the_message,
    acknowledgements::a_receipt_outlives_both_homes,
    events::an_event_goes_out_once_and_its_result_comes_once,
    events::a_result_outlives_the_home_and_finds_another_device,
    events::an_event_without_a_result_in_time_says_so,
    events::a_result_nobody_can_take_holds_up_none,
    events::tickets_are_listed_and_a_result_can_be_given_over_http,
    presence::a_user_is_online_from_the_first_session_and_offline_after_the_last,
    presence::a_quick_reconnect_is_not_seen_by_anybody,
    presence::a_user_shows_what_it_chose,
    presence::a_status_is_not_acknowledged_before_it_is_kept,
    presence::five_hundred_users_are_answered_at_once_and_in_order,
    watching::a_watcher_is_given_what_is_and_then_every_change_in_order,
    watching::an_invisible_user_looks_to_watchers_as_after_going,
    watching::of_a_dead_node_only_who_does_not_come_back_is_told_offline,
    watching::a_watcher_whose_home_moves_watches_again_and_misses_nothing,
    watching::what_may_not_be_watched_gets_its_code,
    watching::a_token_that_allows_less_ends_what_is_watched,
    watching::the_sdk_watches_on_after_a_crash_of_its_home,
    records::chat_events_has_every_acknowledged_message_as_its_reader_got_it,
    records::user_status_events_has_every_change_with_its_cause,
    records::the_topic_of_each_node_has_every_item_and_links_have_copies,
    operations::every_promised_metric_is_there_and_counts,
    operations::every_process_says_whether_it_lives_and_is_ready,
    operations::ring_and_nodes_say_who_has_what,
    elasticity::a_drained_node_gives_everything_away_stays_and_can_be_taken_back,
    elasticity::what_a_node_leaves_behind_that_is_gone_is_removed,
    elasticity::explain_says_where_a_message_and_a_user_are_and_why,
    elasticity::the_age_of_the_canary_tells_whether_messages_get_through,
    elasticity::a_node_of_which_a_part_is_broken_says_which_and_the_others_take_over,
    elasticity::the_users_of_a_dead_node_are_asked_to_come_one_after_the_other,
    rooms::what_is_published_reaches_everyone_on_every_node_in_one_order,
    rooms::who_comes_back_gets_what_was_published_meanwhile,
    rooms::welcome_comes_before_the_replay_of_the_room_that_was_ready_first,
    rooms::what_cannot_be_replayed_is_told_with_where_the_history_ends,
    rooms::after_a_crash_of_its_home_a_room_goes_on_without_loss,
    rooms::members_come_and_go_and_those_of_a_dead_node_disappear,
    rooms::a_repeated_publish_gets_the_same_answer_and_is_shown_once,
    rooms::signals_reach_the_others_and_only_the_latest_waits_for_who_does_not_read,
    rooms::everyone_is_in_the_rooms_that_are_joined_by_all,
    rooms::what_is_not_allowed_in_a_room_gets_its_code,
    rooms::a_join_that_was_left_before_it_was_done_is_not_to_be_repeated,
    rooms::an_invisible_user_is_in_a_room_and_not_shown,
    sessions::a_token_is_refreshed_in_band_and_the_session_outlives_the_first,
    sessions::a_token_that_does_not_hold_is_refused_and_the_old_one_goes_on,
    sessions::a_token_that_is_not_refreshed_ends_the_session_with_3501,
    sessions::the_sdk_refreshes_its_token_without_losing_the_connection,
    sessions::the_oldest_session_gives_way_where_the_policy_says_so,
    sessions::a_device_has_one_session_where_the_policy_says_so,
    sessions::pages_of_other_origins_are_turned_away,
    sessions::a_reader_pages_back_through_its_inbox,
    sessions::the_sdk_pages_back_through_its_inbox_and_a_room,
    server_api::a_message_sent_over_http_arrives_like_any_other_and_a_retry_is_safe,
    server_api::a_batch_is_done_in_order_and_answered_one_by_one,
    server_api::a_user_is_disconnected_wherever_it_is,
    server_api::presence_and_history_are_read_over_http,
    server_api::a_payload_is_text_wherever_it_is_read,
    server_api::without_a_service_token_nothing_is_done,
    server_api::wrong_requests_get_their_codes,
    server_api::while_the_log_is_away_nothing_is_promised_and_a_retry_is_safe,
    server_api::a_request_passes_over_a_node_that_died,
    bad_input::every_bad_input_gets_its_documented_answer,
    bad_input::a_token_is_taken_from_connect_authorization_or_subprotocol,
    bad_input::the_seventeenth_session_of_a_user_is_closed_with_3504,
    bad_input::more_than_256_unanswered_sends_are_refused_and_keep_their_order,
    bad_input::commands_beyond_the_burst_are_refused_with_a_time_and_keep_their_order,
    bad_input::messages_beyond_a_receivers_share_are_refused_with_a_time_and_keep_their_order,
    bad_input::a_node_says_when_an_address_comes_too_often_or_all_places_are_taken,
}
