//! What a process says of itself at `/metrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// All series with their values, by name and labels as they are written; nothing if the process does not answer.
pub async fn scrape(http: &reqwest::Client, admin: SocketAddr) -> Option<BTreeMap<String, f64>> {
    let answer = http.get(format!("http://{admin}/metrics")).send().await.ok()?;
    let text = answer.text().await.ok()?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let series = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    Some(series.collect())
}
