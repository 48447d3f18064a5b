//! What the audit takes for possible, on histories that are made up.

use serde_json::{Value, json};
use soak::{
    audit::{audit, rules},
    history::{By, Heard, Kind, Micros, Record, StreamEnd},
    model::{Interval, KeyLife, Suspension},
    state::{Call, Job, State},
    team::{Key, Team},
};
use std::collections::BTreeMap;
use uuid::Uuid;

const JOB: Uuid = Uuid::from_u128(1);
const ITS_CALL: Uuid = Uuid::from_u128(2);
const OTHER_CALL: Uuid = Uuid::from_u128(3);

fn team() -> Team {
    Team::named("team")
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

/// A job that was completed by what has this tag, or by the end of its own call, and was charged.
fn job(ended_by: Option<&str>) -> Job {
    Job {
        id: JOB,
        team: 0,
        status: "completed".into(),
        tag: None,
        ended_by: ended_by.map(str::to_owned),
        expires: 1_000,
        completion: Value::Null,
        charged: 1,
        charged_at_its_end: 1,
    }
}

/// How often a failure was not free, where a call in a job was heard to fail from 10 to 20, and somebody heard from 30
/// to 40 that the job is completed, which was done by this.
fn failures_that_were_charged(ended_by: Option<&str>) -> usize {
    let own = stream(Kind::OwnStream, "own", ITS_CALL, (5, 15), StreamEnd::Left);
    let mut failed = stream(Kind::Call, "failed", OTHER_CALL, (10, 20), StreamEnd::Left);
    failed.job = Some(JOB);
    failed.heard = Heard { status: 502, call: Some(OTHER_CALL), ..Heard::default() };
    let mut completed = stream(Kind::Complete, "completed", OTHER_CALL, (30, 40), StreamEnd::Left);
    completed.job = Some(JOB);
    completed.asked = json!({"status": "completed"});
    completed.heard = Heard { status: 200, ..Heard::default() };
    let call = Call {
        id: ITS_CALL,
        job: JOB,
        team: 0,
        tag: "own".into(),
        status: "cancelled".into(),
        tokens: 1,
        cost: None,
        settled: Some(0),
        group: "Works".into(),
        opened: 0,
        ended: Some(0),
    };
    let state = State {
        jobs: BTreeMap::from([(JOB, job(ended_by))]),
        calls: BTreeMap::from([(ITS_CALL, call)]),
        ledgers: vec![vec![]],
        accounts: vec![Default::default()],
        dearest: BTreeMap::new(),
    };
    let violations = audit(&[own, failed, completed], &[team()], &[], &state);
    violations.iter().filter(|violation| violation.rule == rules::FAILURE_IS_FREE).count()
}

#[test]
fn a_failure_is_free_only_where_it_came_before_what_completed_the_job() {
    assert_eq!(failures_that_were_charged(None), 0);
    assert_eq!(failures_that_were_charged(Some("completed")), 1);
}

/// How often the end of a call was not what its caller heard, where a job was made for a stream, during this time,
/// whose reader left, and another stream in that job was read to its end from 10 to 20, but is stored as cancelled.
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
        settled: Some(0),
        group: "Works".into(),
        opened: 0,
        ended: Some(0),
    };
    let job = job(None);
    let calls = [call(ITS_CALL, "own"), call(OTHER_CALL, "other")];
    let state = State {
        jobs: BTreeMap::from([(JOB, job)]),
        calls: calls.map(|call| (call.id, call)).into(),
        ledgers: vec![vec![]],
        accounts: vec![Default::default()],
        dearest: BTreeMap::new(),
    };
    let violations = audit(&history, &[team()], &[], &state);
    violations.iter().filter(|violation| violation.rule == rules::CALL_END).count()
}

/// How often a key that works was refused, where a team was suspended from 0 to 10, and a call of its key was refused
/// by LiteLLM during the one time, and its repeat was answered the same, with or without having been kept, during the
/// other.
fn wrong_refusals(first: (Micros, Micros), repeat: (Micros, Micros), replayed: bool) -> usize {
    let refused = |during: (Micros, Micros), replayed| {
        let heard = Heard {
            status: 401,
            body: json!({"code": "unauthenticated"}),
            call: Some(ITS_CALL),
            replayed,
            ..Heard::default()
        };
        let left = stream(Kind::OwnJob, "own", ITS_CALL, during, StreamEnd::Left);
        Record { by: By::Key(0), repeatable: true, heard, ..left }
    };
    let mut team = team();
    let key = Key { secret: "key".into(), id: Uuid::nil(), life: KeyLife::default() };
    team.keys = vec![key].into();
    let (began, ended) = (Interval::new(0, 1), Interval::new(9, 10));
    team.suspensions = vec![Suspension { began, ended, known_at: None }].into();
    let state = State {
        jobs: BTreeMap::new(),
        calls: BTreeMap::new(),
        ledgers: vec![vec![]],
        accounts: vec![Default::default()],
        dearest: BTreeMap::new(),
    };
    let violations = audit(&[refused(first, false), refused(repeat, replayed)], &[team], &[], &state);
    violations.iter().filter(|violation| violation.rule == rules::KEY_WORKS).count()
}

#[test]
fn an_answer_that_was_kept_tells_of_the_time_when_it_was_given() {
    assert_eq!(wrong_refusals((5, 6), (20, 21), true), 0);
    assert_eq!(wrong_refusals((5, 6), (20, 21), false), 1);
    assert_eq!(wrong_refusals((15, 16), (20, 21), true), 2);
}

#[test]
fn the_call_that_a_job_was_made_for_ends_the_others_in_it_and_no_sooner_than_it_began() {
    assert_eq!(wrong_ends((5, 15)), 0);
    assert_eq!(wrong_ends((30, 40)), 1);
}
