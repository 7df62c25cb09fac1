//! What the server API reads: presence and the hot window of streams, from the store.

use std::time::Duration;

use roost_backend::store::{Limit, Shown, StoreError, shown_of};
use roost_proto::answers::Paged;
use roost_proto::history::Before;
use roost_proto::limits::BATCH_BYTES_MAX;
use roost_proto::{ErrorBody, ErrorCode, StreamId, UserId};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::access::{Api, ended};
use crate::core::{TicketShown, history};
use crate::inputs::NodeInput;

/// For a whole request: 500 users are two commands for each of their vnodes, in one round trip.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

fn unread(error: &StoreError) -> ErrorBody {
    tracing::debug!(%error, "the store did not answer");
    ErrorBody::new(ErrorCode::Unavailable, "the store cannot be read at the moment")
}

async fn within<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, ErrorBody> {
    let answer = timeout(READ_TIMEOUT, read).await;
    answer.unwrap_or(Err(StoreError::Timeout(READ_TIMEOUT))).map_err(|error| unread(&error))
}

/// What others may see of these users.
pub(super) async fn presence(api: &Api, users: Vec<UserId>) -> Result<Vec<Shown>, ErrorBody> {
    let (told, ready) = oneshot::channel();
    let asked = async {
        api.events.send(NodeInput::Ready(told)).await.ok()?;
        ready.await.ok()
    };
    let ready = timeout(READ_TIMEOUT, asked).await.ok().flatten().ok_or_else(ended)?;
    let place = |user: &UserId| roost_ring::vnode_of_user(user, api.vnodes);
    let stale = |vnode: roost_proto::VnodeId| !ready.get(vnode.index()).copied().unwrap_or(false);
    within(shown_of(&*api.store, users, place, stale)).await
}

/// The events that wait for a result at this node, the oldest first, and how many there are.
pub(super) async fn tickets(
    api: &Api,
    client: Option<UserId>,
) -> Result<(Vec<TicketShown>, usize), ErrorBody> {
    let (told, tickets) = oneshot::channel();
    let asked = async {
        api.events.send(NodeInput::Tickets(client, told)).await.ok()?;
        tickets.await.ok()
    };
    timeout(READ_TIMEOUT, asked).await.ok().flatten().ok_or_else(ended)
}

/// A page of any stream.
pub(super) async fn history(
    api: &Api,
    by: &UserId,
    stream: &StreamId,
    before: Option<Before>,
    limit: Option<usize>,
) -> Result<Paged, ErrorBody> {
    let limit = history::limit(limit)?;
    let vnode = roost_ring::vnode_of_stream(stream, api.vnodes);
    let before = before.map(|before| before.0);
    let limit = Limit { entries: limit, bytes: BATCH_BYTES_MAX };
    let page = within(async {
        // Waited for as long as for the answer.
        let _permit = api.permits.pages.wait(by).await;
        api.store.page(vnode, stream, before, limit).await
    });
    let asked = history::Asked { stream, before, archive_url: api.archive_url.as_deref() };
    Ok(history::answer(page.await?, asked))
}
