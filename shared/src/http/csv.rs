//! Tables as comma-separated values (RFC 4180), of any size: what is not sent yet is not read yet either.

use crate::error::{Error, Result};
use ::csv::WriterBuilder;
use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header::CONTENT_TYPE},
    response::Response,
};
use futures::{StreamExt, stream};

/// A part of a table.
pub struct Page<Cursor, const COLUMNS: usize> {
    /// The rows.
    pub rows: Vec<[String; COLUMNS]>,
    /// Where the next page begins; `None`: this is the last one.
    pub next: Option<Cursor>,
}

/// An answer with a table whose first line has the names of the columns. `read` reads the page that begins at a cursor,
/// or the first one. If the first page can't be read, that is the error. If a later one can't, the transfer breaks off,
/// so nobody takes the part for the whole.
pub async fn answer<Cursor, Reading, const COLUMNS: usize>(
    columns: [&str; COLUMNS],
    read: impl Fn(Option<Cursor>) -> Reading + Send + 'static,
) -> Result<Response>
where
    Cursor: Send + 'static,
    Reading: Future<Output = Result<Page<Cursor, COLUMNS>>> + Send + 'static,
{
    let first = read(None).await?;
    let head = [lines([columns])?, lines(first.rows)?].concat();
    let rest = stream::try_unfold((first.next, read), |(next, read)| async move {
        let Some(cursor) = next else { return Ok(None) };
        let reading = read(Some(cursor));
        let page = reading.await?;
        Ok::<_, Error>(Some((Bytes::from(lines(page.rows)?), (page.next, read))))
    });
    let rest = rest.map(|part| {
        part.map_err(|error| {
            error.log("going on with a table");
            "the table breaks off"
        })
    });
    let head = stream::iter([Ok(Bytes::from(head))]);
    let mut response = Response::new(Body::from_stream(head.chain(rest)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    Ok(response)
}

/// Rows as lines.
pub fn lines<Cell: AsRef<[u8]>, const COLUMNS: usize>(
    rows: impl IntoIterator<Item = [Cell; COLUMNS]>,
) -> Result<Vec<u8>> {
    let mut writer = WriterBuilder::new().from_writer(vec![]);
    for row in rows {
        writer.write_record(row).map_err(Error::internal)?;
    }
    writer.into_inner().map_err(Error::internal)
}

/// A cell with text from outside. A spreadsheet would run some texts as formulas; a quote in front of them prevents
/// that.
pub fn text(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be_and_run_nothing() {
        let rows = [[text("a,b"), text("say \"hi\"")], [text("=1+1"), text("two\nlines")]];
        assert_eq!(
            String::from_utf8(lines(rows).unwrap()).unwrap(),
            "\"a,b\",\"say \"\"hi\"\"\"\n'=1+1,\"two\nlines\"\n"
        );
    }
}
