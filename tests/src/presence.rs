//! Whether what is said of users is true.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::processes::{Cluster, LIMIT, until};
use roost_proto::events::{Status, StatusEvent};

use crate::ledger::Ledger;
use crate::topic_reader::{TopicReader, statuses};

/// Who is there and who is not.
pub struct Truth(BTreeMap<String, Status>);

impl Truth {
    pub fn new<'a>(
        online: impl Iterator<Item = &'a String>,
        offline: impl Iterator<Item = &'a String>,
    ) -> Self {
        let online = online.map(|user| (user.clone(), Status::Online));
        Self(online.chain(offline.map(|user| (user.clone(), Status::Offline))).collect())
    }

    /// The first user of whom the last event says something else.
    fn contradicted(&self, published: &BTreeMap<String, Vec<StatusEvent>>) -> Option<String> {
        let last = |user: &String| published.get(user).and_then(|events| events.last());
        let wrong =
            self.0.iter().find(|(user, status)| last(user).map(|event| event.status) != Some(**status));
        wrong.map(|(user, status)| format!("{user} is {status:?}, published: {:?}", last(user)))
    }

    /// Waits until `/presence` and the last record of `user_status_events` say so of everyone.
    pub async fn is_told(&self, cluster: &Cluster, status: &TopicReader) {
        let users: Vec<String> = self.0.keys().cloned().collect();
        until("/presence tells the truth", LIMIT, async || {
            let shown = cluster.presence(&users).await?;
            let told = |(shown, truth): (&(String, bool), &Status)| {
                let status = match truth {
                    Status::Online => "online",
                    Status::Away => "away",
                    Status::Offline => "offline",
                };
                shown.0 == status && !shown.1
            };
            shown.iter().zip(self.0.values()).all(told).then_some(())
        })
        .await;
        until("user_status_events tells the truth", LIMIT, async || {
            self.contradicted(&statuses(&status.records())).is_none().then_some(())
        })
        .await;
    }

    /// # Panics
    /// If the last event of a user says something else.
    pub fn agrees(&self, published: &BTreeMap<String, Vec<StatusEvent>>) {
        assert_eq!(self.contradicted(published), None);
    }
}

/// Nobody who was always back within the grace was published offline before the end (P6, P8). Says how many were,
/// having been away for longer.
pub fn no_flap(
    ledger: &Ledger,
    names: &[String],
    published: &BTreeMap<String, Vec<StatusEvent>>,
    grace: Duration,
) -> usize {
    let mut late = 0;
    for (user, name) in names.iter().enumerate() {
        let events = published.get(name).map(Vec::as_slice).unwrap_or_default();
        // The last one of those who left is no flap.
        let before = events.len().saturating_sub(1);
        if events[..before].iter().any(|event| event.status == Status::Offline) {
            let absence = ledger.longest_absence(user);
            assert!(absence >= grace, "{name} was away for {absence:?} and flapped: {events:?}");
            late += 1;
        }
    }
    late
}
