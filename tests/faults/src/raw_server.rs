//! A server that answers whatever a test wants to know the handling of.

use crate::RUNTIME;
use anyhow::Result;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What comes after the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The server's side of the connection is closed.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing, and the connection stays open.
    Hold,
    /// The bytes again and again.
    Repeat,
}

/// A scripted answer.
#[derive(Debug, Clone)]
pub struct Script {
    /// What is sent once a request has come in.
    pub bytes: Vec<u8>,
    /// Sent in pieces of so many bytes, with so long a pause before each.
    pub pace: Option<(usize, Duration)>,
    /// What happens after its last byte.
    pub after: After,
}

impl Script {
    /// These bytes at once, and the end of the connection.
    pub fn of(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), pace: None, after: After::Close }
    }

    /// A complete HTTP answer, whose length is told.
    pub fn http(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::of(format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}"))
    }

    /// The same answer with another ending.
    pub fn then(self, after: After) -> Self {
        Self { after, ..self }
    }

    /// The same answer, sent in pieces of so many bytes with a pause after each.
    pub fn paced(self, bytes: usize, pause: Duration) -> Self {
        Self { pace: Some((bytes, pause)), ..self }
    }
}

/// A server that answers the first request of every connection with the same bytes. Dropping it cuts its connections.
pub struct RawServer {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl RawServer {
    /// Starts one on a free port.
    pub async fn start(script: Script) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let script = Arc::new(script);
        let serving = RUNTIME.spawn(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let script = script.clone();
                connections.spawn(async move {
                    // A client that has had enough leaves, which is its right.
                    let _ = answer(stream, &script).await;
                });
            }
        });
        Ok(Self { address, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(mut stream: TcpStream, script: &Script) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut output) = stream.split();
    let mut request = vec![];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if input.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let talk = async {
        loop {
            match script.pace {
                None => output.write_all(&script.bytes).await?,
                Some((bytes, pause)) => {
                    for piece in script.bytes.chunks(bytes) {
                        tokio::time::sleep(pause).await;
                        output.write_all(piece).await?;
                    }
                }
            }
            match script.after {
                After::Repeat => {}
                After::Hold => std::future::pending().await,
                After::Reset => return std::io::Result::Ok(()),
                After::Close => {
                    output.shutdown().await?;
                    // The client has the last word: to close with something unread would reset the connection.
                    std::future::pending().await
                }
            }
        }
    };
    let listen = async {
        let mut rest = vec![0; 16 * 1024];
        while input.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    tokio::select! {
        said = talk => said?,
        left = listen => left?,
    }
    if script.after == After::Reset {
        stream.set_zero_linger()?;
    }
    Ok(())
}
