//! That the documentation is complete, says what the code says, and is about what `spin.toml` routes.

mod committed;
mod document;
mod lines;
mod manifest;
mod routing;
