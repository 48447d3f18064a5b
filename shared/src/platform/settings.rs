//! The component's variables, as `spin.toml` passes them to it.
//!
//! An instance asks its host for each once in [`LIFETIME`]: every request needs several, and asking takes as long as
//! all else that a component does for a call by itself.

use crate::error::{Error, Result};
use secrecy::SecretString;
use spin_sdk::variables;
use std::{
    collections::BTreeMap,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// For how long a value is taken as it was. Where values come from a vault, they may change while an instance lives.
const LIFETIME: Duration = Duration::from_secs(5);

/// What this instance knows, and since when.
static KNOWN: Mutex<BTreeMap<&str, (Instant, String)>> = Mutex::new(BTreeMap::new());

/// The text of a variable. One that the manifest doesn't give this component, or that has no value, is a defect of the
/// deployment, not of the request.
pub async fn text(name: &'static str) -> Result<String> {
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((since, value)) = known().get(name)
        && since.elapsed() < LIFETIME
    {
        return Ok(value.clone());
    }
    let asked = variables::get(name).await;
    let value = asked.map_err(|error| Error::internal(format!("variable {name}: {error}")))?;
    known().insert(name, (Instant::now(), value.clone()));
    Ok(value)
}

/// The value of a variable that is secret.
pub async fn secret(name: &'static str) -> Result<SecretString> {
    text(name).await.map(SecretString::from)
}

/// The value of a variable that has to be of type `T`.
pub async fn parsed<T: FromStr>(name: &'static str) -> Result<T> {
    let value = text(name).await?;
    value
        .trim()
        .parse()
        .map_err(|_| Error::internal(format!("variable {name} has a value of the wrong form")))
}
