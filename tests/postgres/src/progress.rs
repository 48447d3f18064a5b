//! What the user sees of a long step: a line when it starts and, when it is done, how long it took.

use anyhow::Result;
use std::time::Instant;

/// Runs one step under a title.
pub fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    start(title);
    let started = Instant::now();
    let result = work()?;
    eprintln!("    done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(result)
}

/// The title of a step that tells by itself how it ended.
pub fn start(title: &str) {
    eprintln!("==> {title}");
}

/// A remark within a step.
pub fn note(text: &str) {
    eprintln!("    {text}");
}
