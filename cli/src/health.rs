//! `roost health`: for images without curl.

use std::time::Duration;

use anyhow::{Context, bail};

use crate::out::say;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// For example http://127.0.0.1:7401/readyz
    url: String,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(3)).build()?;
    let response = client.get(&args.url).send().await.with_context(|| format!("asking {}", args.url))?;
    let status = response.status();
    say!("{}", response.text().await.unwrap_or_default());
    if !status.is_success() {
        bail!("{status}");
    }
    Ok(())
}
