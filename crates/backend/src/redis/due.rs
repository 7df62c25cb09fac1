//! What an activation returns about messages and events that are not done with.

use roost_proto::ids::MessageId;

use super::reply::{Fields, cursor, from_json, parse, parse_pair, user_id};
use crate::store::{Due, InboxPosition, PendingReceipt, ReceiptRequest, StoreError, Ticket, TicketId};

/// See [`keys::place`](super::keys::place).
fn place(text: &str) -> Result<InboxPosition, StoreError> {
    let (user, at) = text.split_once('\n').unwrap_or((text, ""));
    Ok((user_id(user)?, cursor(at.as_bytes())?))
}

/// Each as its time, and the name of its sender in JSON.
pub(super) fn due(mut fields: Fields) -> Result<Vec<Due>, StoreError> {
    let mut due = Vec::new();
    while !fields.done() {
        let (user, cursor) = place(&fields.text()?)?;
        let told = fields.text()?;
        let (since_ms, from) = told.split_once(' ').unwrap_or((&told, "\"\""));
        let (since_ms, from) = (parse(since_ms.as_bytes())?, from_json(from.as_bytes())?);
        due.push(Due { user, cursor, from, since_ms });
    }
    // Redis keeps them in no order.
    due.sort_by(|a, b| (&a.user, a.cursor).cmp(&(&b.user, b.cursor)));
    Ok(due)
}

pub(super) fn wanted(mut fields: Fields) -> Result<Vec<(InboxPosition, ReceiptRequest)>, StoreError> {
    let mut wanted = Vec::new();
    while !fields.done() {
        wanted.push((place(&fields.text()?)?, from_json(&fields.bytes()?)?));
    }
    wanted.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(wanted)
}

pub(super) fn owed(mut fields: Fields) -> Result<Vec<(MessageId, PendingReceipt)>, StoreError> {
    let mut owed = Vec::new();
    while !fields.done() {
        owed.push((message_id(&fields.text()?)?, from_json(&fields.bytes()?)?));
    }
    owed.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(owed)
}

fn message_id(text: &str) -> Result<MessageId, StoreError> {
    MessageId::new(text).map_err(|e| StoreError::Garbled(format!("message id '{text}': {e}")))
}

pub(super) fn tickets(mut fields: Fields) -> Result<Vec<(TicketId, Ticket)>, StoreError> {
    let mut tickets = Vec::new();
    while !fields.done() {
        let name = fields.text()?;
        let (client, event) = name.split_once('\n').unwrap_or((&name, ""));
        let (since_ms, at) = parse_pair(&fields.bytes()?, b' ')?;
        tickets.push(((user_id(client)?, message_id(event)?), Ticket { since_ms, at }));
    }
    tickets.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(tickets)
}
