//! The component's variables, as `spin.toml` passes them to it.

use crate::error::{Error, Result};
use spin_sdk::variables;
use std::str::FromStr;

/// The text of a variable. One that the manifest doesn't give this component, or that has no value, is a defect of the
/// deployment, not of the request.
pub async fn text(name: &'static str) -> Result<String> {
    variables::get(name).await.map_err(|error| Error::internal(format!("variable {name}: {error}")))
}

/// The value of a variable that has to be of type `T`.
pub async fn parsed<T: FromStr>(name: &'static str) -> Result<T> {
    let value = text(name).await?;
    value
        .trim()
        .parse()
        .map_err(|_| Error::internal(format!("variable {name} has a value of the wrong form")))
}
