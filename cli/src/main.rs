//! `roost`: the command line. `roost dev` is the whole cluster in one process; the rest talks to a cluster.

#![warn(clippy::print_stdout, clippy::print_stderr)] // They panic when nobody reads: see `out`.

mod ask;
mod connect;
mod dead_letters;
mod dev;
mod drain;
mod explain;
mod forget;
mod health;
mod out;
mod place;
mod plan;
mod processor;
mod room;
mod route;
mod service;
mod talk;
mod token;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use roost_service::run_main;
use roost_service::shutdown::EXIT_CONFIG;

/// What `--help` ends with.
const VARIABLES: &str = "\
Most read their environment too; docs/CONFIG.md has every variable. The most important ones, with their defaults:

  ROOST_URL       http://127.0.0.1:7300  a coordinator; --url goes first
  ARCHIVE_URL     http://127.0.0.1:7310  an archiver; --archive-url goes first
  ROOST_TOKEN     -                      the token to use; without it one is made with the secret at hand:
  JWT_SECRET      -                      or JWT_SECRET_FILE; else `jwt-secret` in the data directory
  ROOST_DATA_DIR  .roost                 where `roost dev` keeps its data and that secret";

/// A presence and messaging cluster that knows where a user is.
#[derive(Parser)]
#[command(name = "roost", version, about, after_help = VARIABLES)]
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
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return answered(&error),
    };
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

/// `--help` and `--version` as they are; what is no command is one line, and the exit code of wrong configuration.
fn answered(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        out::bytes(error.render().to_string().as_bytes());
        return ExitCode::SUCCESS;
    }
    let said = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.render().to_string(),
        _ => format!("roost: {}", wrong(&error.render().to_string())),
    };
    // The exit code says it to whoever does not read it.
    let _ = writeln!(io::stderr(), "{said}");
    ExitCode::from(EXIT_CONFIG)
}

/// What clap says is wrong, without the usage that it puts below.
fn wrong(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let said = lines.filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let said = said.collect::<Vec<_>>().join(" ");
    format!("{} (--help says what there is)", said.trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_arguments_is_one_line() {
        for (given, said) in [
            (["roost", "--prot"], "unexpected argument '--prot' found"),
            (["roost", "lisen"], "unrecognized subcommand 'lisen' tip: "),
            (["roost", "send"], "the following required arguments were not provided: --from"),
        ] {
            let error = Args::try_parse_from(given).err().map(|error| error.render().to_string());
            let line = wrong(&error.unwrap());
            assert!(line.starts_with(said) && line.ends_with(')') && line.lines().count() == 1, "{line}");
        }
    }
}
