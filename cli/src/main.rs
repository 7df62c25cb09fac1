//! `roost`: the command line. `roost dev` is the whole cluster in one process; the rest talks to a cluster.

mod ask;
mod dead_letters;
mod dev;
mod drain;
mod explain;
mod forget;
mod health;
mod place;
mod plan;
mod processor;
mod room;
mod route;
mod service;
mod talk;
mod token;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use roost_service::run_main;

/// A presence and messaging cluster that knows where a user is.
#[derive(Parser)]
#[command(name = "roost", version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a coordinator, three ws-nodes and an archiver in this process, with nothing else installed
    Dev(dev::Args),
    /// Make a token for a user
    Token(token::Args),
    /// Send a message and wait until it is kept
    Send(talk::SendArgs),
    /// Give an event to the application's processors, and print the result
    Event(talk::EventArgs),
    /// Print what clients give to the application's processors
    Events(processor::EventsArgs),
    /// Answer an event, as a processor does
    Results(processor::ResultsArgs),
    /// Print the events that wait for a result
    Tickets(processor::TicketsArgs),
    /// Print what arrives for a user, until interrupted
    Listen(talk::ListenArgs),
    /// What could not be archived: list it, try it again, or discard it
    DeadLetters(dead_letters::Args),
    /// Print the newest messages of a stream
    History(service::HistoryArgs),
    /// Close every session of a user, wherever it is
    Disconnect(service::DisconnectArgs),
    /// Come into a room: print what is published there, and publish lines typed here
    Join(room::JoinArgs),
    /// Publish a message to a room and wait until it is kept
    Publish(room::PublishArgs),
    /// Print who is in a room
    Members(room::MembersArgs),
    /// Tell a room or a user something that is not kept: a cursor, typing, a reaction
    Signal(room::SignalArgs),
    /// Print what users show to others, now and as it changes, until interrupted
    Watch(watch::Args),
    /// Explain where a user is at home: hash, vnode, node, epoch, lease
    Route(route::Args),
    /// Say where a message or a user is, and what it waits for
    Explain(explain::Args),
    /// Say what would move if nodes came or went; changes nothing
    Plan(plan::Args),
    /// Empty a node that runs: its vnodes and sessions go to the others
    Drain(drain::Args),
    /// Remove the row and the topic of a node that left for good
    Forget(forget::Args),
    /// Ask a health address; exits with 1 unless it answers 200
    Health(health::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    run_main("roost", move || async move {
        match args.command {
            Command::Dev(args) => dev::run(args).await,
            Command::Token(args) => token::run(&args),
            Command::Send(args) => talk::send(args).await,
            Command::Event(args) => talk::event(args).await,
            Command::Events(args) => processor::events(args).await,
            Command::Results(args) => processor::results(args).await,
            Command::Tickets(args) => processor::tickets(args).await,
            Command::Listen(args) => talk::listen(args).await,
            Command::DeadLetters(args) => dead_letters::run(args).await,
            Command::History(args) => service::history(args).await,
            Command::Disconnect(args) => service::disconnect(args).await,
            Command::Join(args) => room::join(args).await,
            Command::Publish(args) => room::publish(args).await,
            Command::Members(args) => room::members(args).await,
            Command::Signal(args) => room::signal(args).await,
            Command::Watch(args) => watch::run(args).await,
            Command::Route(args) => route::run(args).await,
            Command::Explain(args) => explain::run(args).await,
            Command::Plan(args) => plan::run(args).await,
            Command::Drain(args) => drain::run(args).await,
            Command::Forget(args) => forget::run(&args).await,
            Command::Health(args) => health::run(&args).await,
        }
    })
}
