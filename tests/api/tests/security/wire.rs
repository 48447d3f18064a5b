//! Requests byte by byte, where a client library would normalise or refuse them.

use api_tests::{PATIENCE, TestApp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// What came back before the connection was closed.
#[derive(Debug)]
pub struct Reply {
    /// The status of the first answer; 0: the connection was closed without one.
    pub status: u16,
    /// All that came, heads and bodies, as text.
    pub text: String,
}

/// Opens a connection.
pub async fn connect(app: &TestApp) -> TcpStream {
    TcpStream::connect(app.url().trim_start_matches("http://")).await.expect("a connection")
}

/// Sends this over a connection of its own and reads to the end of the connection. The request should ask to close it.
pub async fn exchange(app: &TestApp, request: &[u8]) -> Reply {
    let mut connection = connect(app).await;
    // Whoever refuses a request early may have closed already.
    _ = connection.write_all(request).await;
    rest(connection).await
}

/// Reads to the end of the connection.
pub async fn rest(mut connection: TcpStream) -> Reply {
    let mut bytes = vec![];
    // A reset after the answer is an end as well.
    _ = timeout(PATIENCE, connection.read_to_end(&mut bytes))
        .await
        .expect("the connection is closed in time");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Reply { status, text }
}

/// A request line with these headers, each a line, that closes the connection.
pub fn head(request_line: &str, headers: &[&str]) -> String {
    let mut head = format!("{request_line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head
}
