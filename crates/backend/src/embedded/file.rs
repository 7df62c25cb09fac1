//! The file of a database: for its owner alone, as what it holds is, and for one process at a time.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Read and written by the owner.
const PRIVATE: u32 = 0o600;

/// Makes the file at `path` if there is none, and locks one beside it, named by `suffix`, as long as the answer is kept.
///
/// # Errors
/// What is in the way, in words; another process that has it open above all.
pub(super) fn claim(path: &Path, suffix: &str) -> Result<File, String> {
    let name = beside(path, suffix);
    let said = |at: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", at.display());
    let lock = private(&name).map_err(|e| said(&name, &e))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(said(&name, &"in use by another process")),
        Err(TryLockError::Error(e)) => return Err(said(&name, &e)),
    }
    private(path).map_err(|e| said(path, &e))?;
    // SQLite gives new files beside it the same permissions (its `findCreateFileMode`); those of a process that ended
    // without a word are used again as they are.
    for suffix in ["-wal", "-shm"] {
        let beside = beside(path, suffix);
        if beside.exists() {
            private(&beside).map_err(|e| said(&beside, &e))?;
        }
    }
    Ok(lock)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A file of an earlier version may be open to others: it is closed to them.
fn private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(PRIVATE).open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 != PRIVATE {
        file.set_permissions(Permissions::from_mode(PRIVATE))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_owners_alone_and_one_processs_at_a_time() {
        let dir = std::env::temp_dir().join(format!("roost-file-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("store.db");
        for name in ["store.db", "store.db-wal"] {
            std::fs::write(dir.join(name), "").unwrap();
            std::fs::set_permissions(dir.join(name), Permissions::from_mode(0o644)).unwrap();
        }
        let claimed = claim(&path, ".lock").unwrap();
        for name in ["store.db", "store.db-wal", "store.db.lock"] {
            let mode = dir.join(name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, PRIVATE, "{name}");
        }
        assert!(claim(&path, ".lock").unwrap_err().contains("another process"));
        drop(claimed);
        claim(&path, ".lock").unwrap();
        std::fs::remove_dir_all(dir).unwrap();
    }
}
