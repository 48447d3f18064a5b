//! Passwords and keys that are made once and kept in files that only their owner can read.

use anyhow::{Context, Result};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};
use uuid::Uuid;

/// A new secret: 64 hexadecimal digits, 244 bits of them random.
pub fn generate() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Writes a file that only its owner can read, in one step: others see the old content or the new one.
pub fn write(file: &Path, text: &str) -> Result<()> {
    let write = || {
        let new = file.with_extension("new");
        // A file that an interrupted run left would keep its mode.
        let _ = fs::remove_file(&new);
        let mut handle = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        handle.write_all(text.as_bytes())?;
        handle.write_all(b"\n")?;
        fs::rename(&new, file)
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}
