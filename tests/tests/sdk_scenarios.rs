//! `docs/SDK-SCENARIOS.md` with the Rust SDK: a test for each, on the embedded back end and on Kafka and Redis.

#[path = "sdk_scenarios/connections.rs"]
mod connections;
#[path = "sdk_scenarios/endings.rs"]
mod endings;
#[path = "sdk_scenarios/events.rs"]
mod events;
#[path = "sdk_scenarios/messages.rs"]
mod messages;
#[path = "sdk_scenarios/people.rs"]
mod people;
#[path = "sdk_scenarios/person.rs"]
mod person;
#[path = "sdk_scenarios/tokens.rs"]
mod tokens;
#[path = "sdk_scenarios/way.rs"]
mod way;

/// The tests on each back end, and the test that they are the list.
macro_rules! scenarios {
    ($($module:ident::$name:ident,)*) => {
        roost_tests::on_each_backend! { $($module::$name,)* }

        #[test]
        fn the_list_of_scenarios_is_what_is_tested() {
            let list = include_str!("../../docs/SDK-SCENARIOS.md");
            let listed: Vec<_> = list.lines().filter_map(|line| line.strip_prefix("## ")).collect();
            let tested = [$(stringify!($name)),*].map(|name| name.replace('_', "-"));
            assert_eq!(tested, &listed[..]);
        }
    };
}

scenarios! {
    connections::connect,
    messages::send_and_receive,
    messages::offline_queue,
    messages::queue_overflow,
    messages::resume,
    messages::gap,
    connections::cut_sockets,
    connections::retry_after_lost_reply,
    connections::moved,
    connections::failover,
    messages::slow_reader,
    events::event_result,
    events::event_timeout,
    people::room_resume,
    people::presence_watch,
    people::signals_latest_wins,
    tokens::token_expiry,
    tokens::narrower_token,
    tokens::bad_token,
    endings::too_many_sessions,
    endings::disconnected_by_server,
}
