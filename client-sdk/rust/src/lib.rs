//! The Rust client of Roost: connects a user to its home, sends, joins rooms, and gives what arrives as a stream.
//!
//! ```no_run
//! use roost_client::{Client, Event};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let token = std::env::var("ROOST_TOKEN")?; // `roost token alice` makes one
//! let (client, mut events) = Client::builder("http://127.0.0.1:7300").token(token).connect().await?;
//!
//! let sender = client.clone();
//! tokio::spawn(async move {
//!     let sent = sender.send("bob", serde_json::json!({"text": "hi"})).await;
//!     println!("{sent:?}"); // confirmed: in bob's stream, and in the log
//! });
//! while let Some(event) = events.recv().await {
//!     match event {
//!         Event::Message(m) => println!("{} at {}: {}", m.from, m.at, m.data.get()),
//!         Event::Gap { stream, through, .. } => println!("read the history of {stream} through {through:?}"),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # client.close().await; Ok(())
//! # }
//! ```
//!
//! In a room:
//!
//! ```no_run
//! # async fn run(client: roost_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use roost_client::JoinOptions;
//!
//! let joined = client.join("lobby", JoinOptions { presence: true, ..JoinOptions::default() }).await?;
//! println!("{:?} are here; the room has {} messages", joined.members, joined.cursor.offset);
//! client.publish("lobby", serde_json::json!({"text": "hi all"})).await?;
//! client.signal_room("lobby", "typing", true)?;
//! # Ok(()) }
//! ```
//!
//! Something for the application's own processor, and what that says:
//!
//! ```no_run
//! # async fn run(client: roost_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let asked = client.event(serde_json::json!({"order": 17}));
//! println!("{} waits for its result", asked.id());
//! let result = asked.await?;
//! println!("{}: {:?}", result.kind, result.data);
//! # Ok(()) }
//! ```
//!
//! Who is there:
//!
//! ```no_run
//! # async fn run(client: roost_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! for shown in client.watch(["bob", "carol"]).await? {
//!     println!("{} is {:?} since {:?}", shown.user, shown.status, shown.since);
//! }
//! // That and every change from now on is an `Event::Presence`.
//! # Ok(()) }
//! ```
//!
//! What it promises, as long as the application keeps the client (`docs/PROTOCOL.md` is the contract):
//!
//! - A confirmed send or publish is in the recipient's or the room's stream once. One without a final answer is repeated, under the same id,
//!   in order, over lost connections and moves, for at most 15 minutes. Every error says whether the message may
//!   have been accepted.
//! - An event is repeated like a send until the cluster has it, and then waits for its result, over lost connections and
//!   moves. Every result is a message of the inbox, too ([`EventResult::of`]): also one that nobody waits for, because it
//!   came too late, or is of an earlier process or of another device.
//! - Each message of the inbox, and of each room, is shown once, in order. What cannot be replayed is told as [`Event::Gap`] or
//!   [`Event::Reset`], never skipped.
//! - What was shown and taken is acknowledged; [`Client::cursor`] is where a later client goes on. Every connection shows
//!   the server where the client is; a [`CursorStore`] of the application's makes that true of the first one, too. (What
//!   the server remembers of a device may be lost with the messages, and then it says that nothing was missed.)
//! - An address that leads to no coordinator is told within three seconds: [`Client::trouble`], [`Event::NotConnected`].
//! - A room stays joined over reconnects and moves until it is left; one that cannot be kept is told as
//!   [`Event::RoomLost`].
//! - A user stays watched over reconnects and moves until unwatched, and what was told last is what the user shows;
//!   one that may not be watched any more is told as [`Event::WatchLost`].
//! - What is still in the hot window can be read again, page by page ([`Client::history`]).
//! - A slow application slows the reading; nothing is dropped and nothing grows without bound.
//!
//! Not here: history older than the hot window, TLS
//! (put a proxy in front of the client, or wait for a later version), and storage: a send that must survive the
//! process belongs in the application's own store, with its id ([`Client::send_with_id`]).
//!
//! Inside: `core` (with `link`, `outbox`, `lanes`, `inbox`, `rooms`, `watching`, `place`, `signals`) decides and has no I/O; `driver` is the one task, and carries.

#![warn(missing_docs)]
// What `bare` shows is otherwise seen by nobody.
#![cfg_attr(not(feature = "simulation"), allow(unreachable_pub))]

#[allow(missing_docs, reason = "shown to simulations alone")]
mod backoff;
mod builder;
mod client;
mod connection;
#[allow(missing_docs, reason = "shown to simulations alone")]
mod core;
#[cfg(test)]
mod core_tests;
mod cursors;
mod driver;
mod error;
mod event;
mod event_calls;
mod history;
mod inbox;
mod lanes;
mod link;
#[allow(missing_docs, reason = "shown to simulations alone")]
mod outbox;
#[cfg(test)]
mod outbox_tests;
mod place;
mod refresh;
mod room_calls;
mod rooms;
#[allow(missing_docs, reason = "shown to simulations alone")]
mod route;
#[allow(missing_docs, reason = "shown to simulations alone")]
mod signals;
#[cfg(test)]
mod simulation;
mod state;
mod token;
mod watch_calls;
mod watching;

/// The core without its driver, for simulations of whole clusters. No part of the interface.
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod bare {
    pub use crate::backoff::Backoff;
    pub use crate::core::{Action, Core, CoreConfig, Input};
    pub use crate::error::Trouble;
    pub use crate::event::Item;
    pub use crate::lanes::OrderingKey;
    pub use crate::link::ConnId;
    pub use crate::outbox::{Command, Done, Ticket, What};
    pub use crate::route::Route;
    pub use crate::signals::{Audience, Outgoing};
}

pub use builder::Builder;
pub use client::{Client, SendOptions, Sent};
pub use cursors::CursorStore;
pub use error::{BoxError, BuildError, Cause, ConnectError, ConnectTrouble, Failure, NotAToken, SendError};
pub use event::{Event, Events, Members};
pub use event_calls::{EventCall, EventResult};
pub use history::Page;
pub use room_calls::{JoinOptions, Joined, Published};
pub use roost_proto::events::{Message, Receipt, Status};
pub use roost_proto::frames::{Change, ChosenStatus, InfoOf, Presence, Signalled};
pub use roost_proto::history::Before;
pub use roost_proto::{
    Cursor, Epoch, ErrorBody, ErrorCode, IdError, Json, MessageId, NodeId, Offset, RoomId, SessionId,
    StreamId, UserId,
};
pub use state::State;
