//! Carries what the [`Leader`] asks for: to the store, to admin ports, and the answers back.
//!
//! All decisions are the leader's; here are clocks, time-outs, and the log.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roost_backend::store::{Resign, Store, StoreError};
use roost_service::admin::is_unspecified;
use roost_service::boot_ms;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::leader::{Leader, LeaderAction, LeaderEvent};
use crate::metrics::Metrics;
use crate::view::View;

/// How often the leader is asked what is due: four times per beat.
const TICKS_PER_BEAT: u32 = 4;
/// A process that is there accepts or refuses within a round trip.
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);
/// One write of the leader: well within half a lease, after which it counts as cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// A coordinator that stops does not wait longer for this.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct Carrier {
    pub leader: Leader,
    pub beat: Duration,
    pub store: Arc<dyn Store>,
    pub view: Arc<View>,
    pub metrics: Metrics,
    pub leading: Arc<AtomicBool>,
}

impl Carrier {
    /// Until `stop`, and until what is on its way then is answered.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let started = Instant::now();
        let ms_of = |at: Instant| u64::try_from(at.duration_since(started).as_millis()).unwrap_or(u64::MAX);
        let mut answers = JoinSet::new();
        let mut tables = self.view.subscribe();
        tables.mark_changed();
        let mut tick = interval(self.beat / TICKS_PER_BEAT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                Some(answer) = answers.join_next() => match answer {
                    Ok(event) => event,
                    Err(failure) => {
                        // The leader waits for an answer that will not come: better that another one leads.
                        tracing::error!(%failure, "a call of the leader broke");
                        break;
                    }
                },
                Ok(()) = tables.changed() => {
                    let snapshot = self.view.load();
                    let (table, asked_at) = (Arc::clone(&snapshot.table), ms_of(snapshot.asked_at));
                    LeaderEvent::Table { table, asked_at, boot_ms: boot_ms() }
                }
                _ = tick.tick() => LeaderEvent::Tick,
            };
            self.note(&event);
            for action in self.leader.step(event, ms_of(Instant::now())) {
                answers.spawn(carry(Arc::clone(&self.store), action, self.metrics.clone()));
            }
            self.note_role();
        }
        // A lead that is granted after it was given up would stay for a lease.
        let rest = async {
            while let Some(answer) = answers.join_next().await {
                let Ok(event) = answer else { continue };
                self.leader.step(event, ms_of(Instant::now()));
            }
        };
        let answered = timeout(RESIGN_TIMEOUT, rest).await;
        if answered.is_err() {
            tracing::warn!("calls of the leader are not answered: the lead may stay taken for a lease");
        }
        let leads = self.leader.is_leading();
        if self.leading.swap(false, Ordering::AcqRel) || leads {
            self.resign().await;
        }
        self.metrics.leading(false, 0);
    }

    /// So that another leads at once, not a lease later.
    async fn resign(&self) {
        let data_set = self.view.load().table.data_set.clone();
        let request = Resign { data_set, token: self.leader.token().to_owned() };
        match timeout(RESIGN_TIMEOUT, self.store.resign(&request)).await {
            Ok(Ok(done)) => tracing::info!(done, "this coordinator gave the lead up"),
            Ok(Err(error)) => tracing::warn!(%error, "the lead stays taken for a lease"),
            Err(_) => tracing::warn!("the lead stays taken for a lease: the store does not answer"),
        }
    }

    fn note(&self, event: &LeaderEvent) {
        if matches!(event, LeaderEvent::Tick) {
            self.metrics.view_age(self.view.load().age());
            self.metrics.store_commands(self.store.commands());
        }
    }

    fn note_role(&self) {
        let leads = self.leader.is_leading();
        self.metrics.leading(leads, self.leader.pins_overlapping());
        if self.leading.swap(leads, Ordering::AcqRel) != leads {
            tracing::info!(
                leads,
                "{}",
                if leads { "this coordinator leads" } else { "this coordinator stands by" }
            );
        }
    }
}

async fn carry(store: Arc<dyn Store>, action: LeaderAction, metrics: Metrics) -> LeaderEvent {
    match action {
        LeaderAction::Lead(request) => LeaderEvent::Led(within("lead", store.lead(&request)).await),
        LeaderAction::Revoke { request, cause } => {
            let done = within("revoke", store.revoke(&request)).await;
            if done == Some(true) {
                metrics.revoked(cause);
                tracing::warn!(sid = %request.sid, beat = request.beat, ?cause, "node declared dead");
            }
            LeaderEvent::Revoked { sid: request.sid, done }
        }
        LeaderAction::Assign { request, moves } => {
            let done = within("assign", store.assign(&request)).await;
            let version = request.from_version;
            if done == Some(true) {
                metrics.assigned(moves);
                tracing::info!(version = version + 1, targets = request.targets.len(), moves, "assigned");
            }
            LeaderEvent::Assigned(done)
        }
        LeaderAction::Forget(request) => {
            let done = within("forget", store.forget(&request)).await;
            if done == Some(true) && request.gone_for_s.is_none() {
                metrics.forgotten();
                tracing::info!(sid = %request.sid, "node forgotten: it was gone for FORGET_AFTER_S");
            }
            LeaderEvent::Forgot { sid: request.sid, done }
        }
        LeaderAction::ProbeAdmin { sid, addr } => {
            let refused = refuses(&addr).await;
            tracing::info!(%sid, addr, refused, "a beat is late: asked at its admin port");
            LeaderEvent::Probed { sid, refused }
        }
    }
}

async fn within<T>(what: &'static str, call: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    let answer = timeout(WRITE_TIMEOUT, call).await.unwrap_or(Err(StoreError::Timeout(WRITE_TIMEOUT)));
    // Repeated by the leader at its own pace; `/readyz` and the metrics say that the store is away.
    answer.inspect_err(|error| tracing::debug!(%error, what, "no answer to the leader")).ok()
}

/// Whether nobody listens there any more. Silence is no proof: the machine may be slow, or the way there cut.
async fn refuses(addr: &str) -> bool {
    // An address that means "this machine" wherever it is read would tell of the wrong machine.
    if is_unspecified(addr) {
        return false;
    }
    match timeout(PROBE_TIMEOUT, TcpStream::connect(addr)).await {
        Ok(Err(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn only_a_closed_port_is_a_refusal() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        assert!(!refuses(&addr.to_string()).await);
        drop(listener);
        assert!(refuses(&addr.to_string()).await);
        assert!(!refuses(&format!("0.0.0.0:{}", addr.port())).await);
        assert!(!refuses("no such host:1").await);
        assert!(!refuses("").await);
    }
}
