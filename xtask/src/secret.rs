//! Passwords and keys that are made once and kept in `.data/`.

use crate::project;
use anyhow::{Context, Result};
use private_postgres::secret::{generate, write};
use std::fs;

/// The secret in the file `name` of `.data/`, made when there is none.
pub fn kept(name: &str) -> Result<String> {
    let file = project::data()?.join(name);
    if file.exists() {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        return Ok(text.trim().to_owned());
    }
    let secret = generate();
    write(&file, &secret)?;
    Ok(secret)
}
