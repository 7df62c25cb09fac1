//! Watchers: long after each fault, what one was told last of each whom it watches is true.

use std::collections::BTreeMap;

use super::Case;
use crate::history::{Line, What};

pub(super) fn judge(case: &mut Case, lines: &[Line]) {
    let mut watched: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut pictures: BTreeMap<usize, BTreeMap<String, String>> = BTreeMap::new();
    for line in lines {
        match &line.what {
            What::Watching { user, whom } => {
                watched.insert(*user, whom.clone());
            }
            What::Shown { user, statuses } => {
                pictures.entry(*user).or_default().extend(statuses.clone());
            }
            What::Settled { round, online, offline, .. } => {
                let online = online.iter().map(|user| (user, "online"));
                let truth: BTreeMap<&String, &str> =
                    online.chain(offline.iter().map(|user| (user, "offline"))).collect();
                for (watcher, whom) in &watched {
                    let picture = pictures.entry(*watcher).or_default();
                    for (user, truth) in whom.iter().filter_map(|user| Some((user, *truth.get(user)?))) {
                        let told = picture.get(user).map_or("nothing", String::as_str);
                        if told != truth {
                            let what = format!("{watcher} was told {told} of {user}, who is {truth}");
                            case.flaw_in(*round, "watchers", what, |row| &mut row.watchers);
                        }
                    }
                }
            }
            _ => {}
        }
    }
}
