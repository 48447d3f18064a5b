//! What the audit takes for possible, on histories that are made up.

use serde_json::{Value, json};
use soak::{
    audit::{audit, rules},
    history::{By, Heard, Kind, Micros, Record, StreamEnd},
    state::{Call, Job, State},
    team::Team,
};
use std::collections::BTreeMap;
use uuid::Uuid;

const JOB: Uuid = Uuid::from_u128(1);
const ITS_CALL: Uuid = Uuid::from_u128(2);
const OTHER_CALL: Uuid = Uuid::from_u128(3);

fn team() -> Team {
    Team {
        id: "team".into(),
        floor: None,
        credits: 0,
        refills: false,
        keys: Vec::new().into(),
        suspensions: Vec::new().into(),
        jobs: Vec::new().into(),
        administration: ().into(),
    }
}

fn stream(kind: Kind, tag: &str, call: Uuid, during: (Micros, Micros), end: StreamEnd) -> Record {
    let heard =
        Heard { status: 200, call: Some(call), job: Some(JOB), stream: Some(end), ..Heard::default() };
    Record {
        kind,
        team: 0,
        by: By::Admin,
        host: 0,
        job: (kind == Kind::Stream).then_some(JOB),
        tag: tag.into(),
        repeatable: false,
        asked: json!({}),
        start: during.0,
        end: during.1,
        heard,
    }
}

/// How often the end of a call was not what its caller heard, where a job was made for a stream, during this time, whose reader left,
/// and another stream in that job was read to its end from 10 to 20, but is stored as cancelled.
fn wrong_ends(its_own: (Micros, Micros)) -> usize {
    let history = [
        stream(Kind::OwnStream, "own", ITS_CALL, its_own, StreamEnd::Left),
        stream(Kind::Stream, "other", OTHER_CALL, (10, 20), StreamEnd::Done(Value::Null)),
    ];
    let call = |id, tag: &str| Call {
        id,
        job: JOB,
        team: 0,
        tag: tag.into(),
        status: "cancelled".into(),
        tokens: 1,
        cost: None,
        settled: true,
    };
    let job = Job {
        id: JOB,
        team: 0,
        status: "completed".into(),
        tag: None,
        ended_by: None,
        expires: 1_000,
        completion: Value::Null,
        charged: 1,
    };
    let calls = [call(ITS_CALL, "own"), call(OTHER_CALL, "other")];
    let state = State {
        jobs: BTreeMap::from([(JOB, job)]),
        calls: calls.map(|call| (call.id, call)).into(),
        ledgers: vec![vec![]],
        accounts: vec![Default::default()],
    };
    let violations = audit(&history, &[team()], &[], &state);
    violations.iter().filter(|violation| violation.rule == rules::CALL_END).count()
}

#[test]
fn the_call_that_a_job_was_made_for_ends_the_others_in_it_and_no_sooner_than_it_began() {
    assert_eq!(wrong_ends((5, 15)), 0);
    assert_eq!(wrong_ends((30, 40)), 1);
}
