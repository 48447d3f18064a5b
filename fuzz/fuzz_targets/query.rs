//! Query strings: pages, cursors, formats, periods.
//!
//! * A parameter given twice is refused, and so is one that nobody knows. A refusal names it.
//! * What is accepted is within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use period::Asked;
use serde::Deserialize;
use shared::http::{Format, Page, PageCursor, PageLimit, PageOffset, default_limit, read_query};

#[path = "../../components/reports/src/period.rs"]
#[allow(dead_code, reason = "what only the component needs")]
mod period;

/// What the lists that grow without end are asked with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    #[serde(default = "default_limit", deserialize_with = "PageLimit::from_text")]
    limit: PageLimit,
    #[serde(default, deserialize_with = "PageOffset::optional_from_text")]
    offset: Option<PageOffset>,
    #[serde(default, deserialize_with = "PageCursor::optional_from_text")]
    cursor: Option<PageCursor>,
    #[serde(default, rename = "format")]
    _format: Format,
}

fuzz_target!(|query: &str| {
    match read_query::<Page>(query) {
        Ok(Page { limit, offset }) => {
            check_bounds(query, limit, Some(offset), None);
            let again = format!("limit={}&offset={}", limit.get(), offset.get());
            assert_eq!(read_query::<Page>(&again).expect("a page"), Page { limit, offset });
        }
        Err(refusal) => fuzz::assert_refusal(refusal),
    }
    match read_query::<Selection>(query) {
        Ok(Selection { limit, offset, cursor, .. }) => check_bounds(query, limit, offset, cursor),
        Err(refusal) => fuzz::assert_refusal(refusal),
    }
    match read_query::<Asked>(query) {
        Ok(asked) => {
            check_names(query);
            check_period(&asked);
        }
        Err(refusal) => fuzz::assert_refusal(refusal),
    }
});

fn check_bounds(query: &str, limit: PageLimit, offset: Option<PageOffset>, cursor: Option<PageCursor>) {
    check_names(query);
    assert!((1..=1000).contains(&limit.get()));
    assert!(offset.is_none_or(|offset| (0..=1_000_000_000_000).contains(&offset.get())));
    assert!(cursor.is_none_or(|cursor| (1..=1_000_000_000_000).contains(&cursor.get())));
}

/// Each name once, as another reader of forms sees it.
fn check_names(query: &str) {
    let mut names: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name).collect();
    names.sort();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}

/// Two days of the calendar as PostgreSQL writes them, in order, and up to the end of the year 9999.
fn check_period(asked: &Asked) {
    let period = match asked.period() {
        Ok(period) => period,
        Err(refusal) => return fuzz::assert_refusal(refusal),
    };
    let (from, until) = (period.from().0, period.to().0);
    for day in [&from, &until] {
        let shaped = day.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        assert!(shaped && (day.len() == 10 || day == "10000-01-01"), "{day}");
    }
    assert!(until == "10000-01-01" || from < until, "{from} {until}");
    assert!(period.name.len() <= 21 && period.name.is_ascii());
}
