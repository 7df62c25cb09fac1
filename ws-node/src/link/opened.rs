//! The links that this node opened: what the core orders is handed to their tasks.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use roost_backend::store::Store;
use roost_service::Jobs;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::dial::Dialled;
use crate::core::{Input, LinkInput, LinkKey, LinkOrder};
use crate::inputs::NodeInput;

/// Payloads that wait for the connection; their bytes are bounded by the core.
const QUEUE_MAX: usize = 4096;

/// See the module's text.
pub(crate) struct Links {
    store: Arc<dyn Store>,
    events: mpsc::Sender<NodeInput>,
    jobs: Jobs,
    stop: CancellationToken,
    open: HashMap<LinkKey, mpsc::Sender<Bytes>>,
}

impl Links {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        events: mpsc::Sender<NodeInput>,
        jobs: Jobs,
        stop: CancellationToken,
    ) -> Self {
        Self { store, events, jobs, stop, open: HashMap::new() }
    }

    /// Does what the core wants; what comes of it at once is returned.
    pub(crate) fn carry_out(&mut self, order: LinkOrder) -> Option<Input> {
        match order {
            LinkOrder::Open { link, admin, from, to } => {
                let (payloads, queue) = mpsc::channel(QUEUE_MAX);
                self.open.insert(link, payloads);
                let (store, events, stop) = (self.store.clone(), self.events.clone(), self.stop.clone());
                self.jobs.spawn(async move {
                    let link = Dialled { link, admin, from, to, events };
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = link.run(&*store, queue) => {}
                    }
                });
                None
            }
            LinkOrder::Send { link, payload } => {
                // Only if thousands of small ones wait: the core counts bytes.
                let full = self.open.get(&link)?.try_send(payload).is_err();
                full.then(|| {
                    self.open.remove(&link);
                    Input::Link(LinkInput::Closed(link))
                })
            }
            LinkOrder::Close(link) => {
                self.open.remove(&link);
                None
            }
        }
    }

    /// A link ended.
    pub(crate) fn forget(&mut self, link: LinkKey) {
        self.open.remove(&link);
    }
}
