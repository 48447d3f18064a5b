//! Files that keep two runs apart. A lock ends with its process, however that ends.

use crate::{processes, progress};
use anyhow::{Context, Result, anyhow};
use std::{
    fs::{File, TryLockError},
    path::Path,
    time::Duration,
};

/// Held as long as it lives.
pub struct Lock(#[expect(dead_code, reason = "closing the file gives the lock back")] File);

/// Takes the lock; `None` when another process holds it.
pub fn try_take(path: &Path) -> Result<Option<Lock>> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(anyhow!(error)).context(format!("cannot lock {}", path.display()))
        }
    }
}

/// Takes the lock, waiting while another process holds it; `who` is what that process is called.
pub fn take(path: &Path, who: &str) -> Result<Lock> {
    let mut told = false;
    loop {
        if let Some(lock) = try_take(path)? {
            return Ok(lock);
        }
        if !told {
            progress::note(&format!("waiting for {who}"));
            told = true;
        }
        processes::pause(Duration::from_millis(200))?;
    }
}
