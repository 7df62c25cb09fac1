//! Where `roost dev` keeps its data, and the secret it shares with the other commands.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use anyhow::{Context, bail};
use roost_service::Secret;

/// Bytes of a secret made up here: what HS256 wants at least (RFC 7518 §3.2).
const SECRET_BYTES: usize = 32;

/// `ROOST_DATA_DIR`, else `.roost` here.
pub(crate) fn data_dir() -> PathBuf {
    std::env::var_os("ROOST_DATA_DIR")
        .filter(|d| !d.is_empty())
        .map_or_else(|| ".roost".into(), PathBuf::from)
}

fn secret_file() -> PathBuf {
    data_dir().join("jwt-secret")
}

/// `JWT_SECRET` (or the file `JWT_SECRET_FILE` names), else the one kept in the data directory.
pub(crate) fn secret() -> anyhow::Result<Option<Secret>> {
    if let Some(secret) = std::env::var("JWT_SECRET").ok().filter(|s| !s.is_empty()) {
        return Ok(Some(Secret::new(secret)));
    }
    let file = std::env::var_os("JWT_SECRET_FILE").map_or_else(secret_file, PathBuf::from);
    if !file.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&file).with_context(|| format!("the secret in {}", file.display()))?;
    let text = text.trim_end_matches('\n');
    if text.is_empty() {
        bail!("{} is empty", file.display());
    }
    Ok(Some(Secret::new(text)))
}

/// The secret, made and kept if there is none yet. The file is for its owner alone.
pub(crate) fn secret_or_made() -> anyhow::Result<Secret> {
    if let Some(secret) = secret()? {
        return Ok(secret);
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir());
    made.with_context(|| format!("the directory {}", data_dir().display()))?;
    let text: String = (0..SECRET_BYTES).map(|_| format!("{:02x}", rand::random::<u8>())).collect();
    let file = secret_file();
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
    let mut opened = opened.with_context(|| format!("writing {}", file.display()))?;
    opened.write_all(text.as_bytes())?;
    Ok(Secret::new(text))
}
