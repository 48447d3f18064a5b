//! Event streams (HTML, 9.2.6), read as they arrive.
//!
//! Only the data of an event is kept; LiteLLM uses no other field. Time and memory are proportional to the bytes that
//! arrive, in whatever pieces.

use std::{collections::VecDeque, mem};

/// The maximum size of one event. An event that never ends would fill the memory that all requests of the instance
/// share.
const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;

/// Assembles events from the bytes of a body.
#[derive(Default)]
pub(super) struct Reader {
    /// The unfinished line.
    line: Vec<u8>,
    /// The data of the unfinished event, each line of it with its line break.
    data: Vec<u8>,
    /// Whether the first line has ended; only that line can begin with a byte order mark.
    begun: bool,
    /// Whether the last byte was a carriage return, to which a following line feed belongs.
    returned: bool,
    /// The data of the events that are complete.
    complete: VecDeque<String>,
}

impl Reader {
    /// Takes the next bytes. Fails if an event is too large.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'))
            && let Some((rest_of_line, [byte, rest @ ..])) = bytes.split_at_checked(end)
        {
            let belongs_to_return = self.returned && rest_of_line.is_empty() && *byte == b'\n';
            self.returned = *byte == b'\r';
            if !belongs_to_return {
                self.line.extend_from_slice(rest_of_line);
                self.end_line();
            }
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.returned = false;
            self.line.extend_from_slice(bytes);
        }
        if self.line.len().saturating_add(self.data.len()) > MAX_EVENT_BYTES {
            return Err(format!("an event of more than {MAX_EVENT_BYTES} bytes"));
        }
        Ok(())
    }

    /// The data of the next event, if it is complete.
    pub(super) fn next(&mut self) -> Option<String> {
        self.complete.pop_front()
    }

    fn end_line(&mut self) {
        let line = mem::take(&mut self.line);
        let begun = mem::replace(&mut self.begun, true);
        let line = if begun { &*line } else { line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line) };
        if line.is_empty() {
            let data = mem::take(&mut self.data);
            // Without a line of data there is no event.
            if let Some(data) = data.strip_suffix(b"\n") {
                self.complete.push_back(String::from_utf8_lossy(data).into_owned());
            }
        } else if let Some(value) = line.strip_prefix(b"data") {
            match value {
                [] => self.data.push(b'\n'),
                [b':', value @ ..] => {
                    self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
                    self.data.push(b'\n');
                }
                // Another field whose name begins with "data".
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: &[&str]) -> Vec<String> {
        let mut reader = Reader::default();
        for chunk in chunks {
            reader.push(chunk.as_bytes()).unwrap();
        }
        std::iter::from_fn(|| reader.next()).collect()
    }

    #[test]
    fn events_are_read_however_they_are_cut_and_whatever_ends_their_lines() {
        assert_eq!(read(&["data: a\n\ndata:b\ndata\ndata: c\n\n"]), ["a", "b\n\nc"]);
        assert_eq!(read(&["da", "ta: a\r", "\n\r", "\nda", "ta:  b\r\r"]), ["a", " b"]);
        assert_eq!(read(&["\u{feff}data: a\n\n\u{feff}data: b\n\n"]), ["a"]);
    }

    #[test]
    fn what_is_no_data_makes_no_event() {
        assert!(
            read(&[": ping\n\n", "event: error\nid: 1\ndatabase: x\n\n", "\n\n", "data: unfinished\n"])
                .is_empty()
        );
    }

    #[test]
    fn an_event_is_bounded() {
        let mut reader = Reader::default();
        let chunk = vec![b'x'; 1024 * 1024];
        assert!((0..8).all(|_| reader.push(&chunk).is_ok()));
        assert!(reader.push(&chunk).is_err());
    }
}
