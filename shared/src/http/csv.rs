//! Tables as comma-separated values (RFC 4180).

use crate::error::{Error, Result};
use ::csv::WriterBuilder;

/// The media type.
pub const CONTENT_TYPE: &str = "text/csv; charset=utf-8";

/// A table whose first line has the names of the columns.
pub fn table<const COLUMNS: usize>(
    columns: [&str; COLUMNS],
    rows: impl Iterator<Item = [String; COLUMNS]>,
) -> Result<String> {
    let mut writer = WriterBuilder::new().from_writer(vec![]);
    writer.write_record(columns).map_err(Error::internal)?;
    for row in rows {
        writer.write_record(row).map_err(Error::internal)?;
    }
    String::from_utf8(writer.into_inner().map_err(Error::internal)?).map_err(Error::internal)
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
        let rows = [[text("a,b"), text("say \"hi\"")], [text("=1+1"), text("two\nlines")]].into_iter();
        assert_eq!(
            table(["x", "y"], rows).unwrap(),
            "x,y\n\"a,b\",\"say \"\"hi\"\"\"\n'=1+1,\"two\nlines\"\n"
        );
    }
}
