//! Tables as CSV. The cells of the input end with U+001F, three make a row.
//!
//! * What is written reads back as the same cells.
//! * No cell with text from outside begins a formula in a spreadsheet; text that can't is left alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::http::csv::{lines, text};

fuzz_target!(|input: &str| {
    let cells: Vec<&str> = input.split('\u{1f}').collect();
    let rows = |cell: fn(&str) -> String| -> Vec<[String; 3]> {
        cells.chunks_exact(3).map(|row| [cell(row[0]), cell(row[1]), cell(row[2])]).collect()
    };
    for rows in [rows(text), rows(str::to_owned)] {
        let head = lines([["a", "b", "c"]]).expect("a head");
        let written = [head, lines(rows.iter().cloned()).expect("a table")].concat();
        let mut reader = csv::Reader::from_reader(&*written);
        assert_eq!(reader.headers().expect("column names"), vec!["a", "b", "c"]);
        let read: Vec<Vec<String>> = reader.deserialize().map(|row| row.expect("a row")).collect();
        assert_eq!(read, rows);
    }
    for cell in cells {
        let written = text(cell);
        assert!(!written.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']), "{written:?}");
        assert!(written == cell || written.strip_prefix('\'') == Some(cell));
    }
});
