//! Guests' standard output and error, line by line, to where [`Logs`] says.

use std::fs::File;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::Logs;

/// A line that grows longer than this is written in pieces, so that a guest can't fill the host's memory.
const LONGEST_LINE: usize = 64 * 1024;

/// An opened destination of log lines, shared by all instances of an application.
pub(crate) struct LogSink(Destination);

enum Destination {
    Stderr,
    Discard,
    Memory(Arc<Mutex<Vec<u8>>>),
    File(Mutex<File>),
}

impl LogSink {
    /// Opens the destination. Only a file can fail.
    pub(crate) fn open(logs: &Logs) -> Result<Self> {
        Ok(Self(match logs {
            Logs::Stderr => Destination::Stderr,
            Logs::Discard => Destination::Discard,
            Logs::Memory(buffer) => Destination::Memory(buffer.clone()),
            Logs::File(path) => {
                let file = File::options()
                    .create(true)
                    .append(true)
                    .open(path)
                    .with_context(|| format!("can't open the log file {}", path.display()))?;
                Destination::File(Mutex::new(file))
            }
        }))
    }

    /// Writes one line, adding its end. A destination that fails loses the line: logging never fails a request.
    pub(crate) fn line(&self, line: &[u8]) {
        let mut whole = Vec::with_capacity(line.len() + 1);
        whole.extend_from_slice(line);
        whole.push(b'\n');
        match &self.0 {
            Destination::Discard => {}
            Destination::Stderr => _ = io::stderr().lock().write_all(&whole),
            Destination::Memory(buffer) => {
                buffer.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&whole);
            }
            Destination::File(file) => {
                _ = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&whole);
            }
        }
    }
}

/// One output of one instance. All streams that a guest opens on it share the unfinished line.
#[derive(Clone)]
pub(crate) struct GuestOutput(Arc<Mutex<Unfinished>>);

struct Unfinished {
    sink: Arc<LogSink>,
    line: Vec<u8>,
}

impl GuestOutput {
    pub(crate) fn new(sink: Arc<LogSink>) -> Self {
        Self(Arc::new(Mutex::new(Unfinished { sink, line: Vec::new() })))
    }

    fn push(&self, bytes: &[u8]) {
        let mut unfinished = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            unfinished.line.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            if piece.ends_with(b"\n") || unfinished.line.len() >= LONGEST_LINE {
                let line = std::mem::take(&mut unfinished.line);
                unfinished.sink.line(&line);
            }
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.sink.line(&self.line);
        }
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for GuestOutput {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LONGEST_LINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_and_the_last_one_when_the_instance_goes() {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::new(LogSink::open(&Logs::Memory(buffer.clone())).unwrap());
        let (one, two) = (GuestOutput::new(sink.clone()), GuestOutput::new(sink));
        one.push(b"hel");
        two.push(b"other\n");
        one.push(b"lo\n\nbye");
        assert_eq!(*buffer.lock().unwrap(), b"other\nhello\n\n");
        drop(one);
        assert_eq!(*buffer.lock().unwrap(), b"other\nhello\n\nbye\n");
    }
}
