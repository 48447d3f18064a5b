//! Ids, times, metadata, and the order of a team's model groups.

use serde_json::json;
use sql_tests::{Expect, World};
use uuid::{Uuid, Variant};

#[tokio::test]
async fn ids_are_uuids_of_version_7_that_sort_by_the_time_they_were_made() {
    let world = World::new().await;
    let before = world.text("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint").await;
    let rows = world
        .client
        .query(
            "SELECT uuid_v7(), pg_sleep(CASE WHEN n % 100 = 0 THEN 0.002 ELSE 0 END) \
             FROM generate_series(1, 2000) n",
            &[],
        )
        .await
        .expect("ids");
    let after = world.text("SELECT ceil(extract(epoch FROM clock_timestamp()) * 1000)::bigint").await;

    let mut ids: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    let milliseconds = |id: &Uuid| (id.as_u128() >> 80) as u64;
    for id in &ids {
        assert_eq!((id.get_version_num(), id.get_variant()), (7, Variant::RFC4122), "{id}");
        let time = milliseconds(id);
        assert!(
            (before.parse().unwrap()..=after.parse().unwrap()).contains(&time),
            "{before} {time} {after}"
        );
    }
    assert!(ids.is_sorted_by_key(milliseconds), "the time only grows");
    assert!(ids[..50].iter().max() < ids[1950..].iter().min(), "what is made later sorts later");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2000, "no two are the same");
}

#[tokio::test]
async fn times_are_rfc_3339_in_utc_with_microseconds_whatever_the_sessions_time_zone() {
    let world = World::new().await;
    for zone in ["UTC", "Asia/Kathmandu", "America/St_Johns"] {
        world.run(&format!("SET TIME ZONE '{zone}'")).await.done();
        for (time, expected) in [
            ("2025-10-13 12:00:00+00", "2025-10-13T12:00:00.000000Z"),
            ("2025-10-13 17:45:00.000001+05:45", "2025-10-13T12:00:00.000001Z"),
            ("2024-12-31 23:59:59.999999-03:30", "2025-01-01T03:29:59.999999Z"),
        ] {
            assert_eq!(world.text(&format!("rfc3339('{time}')")).await, expected, "{zone}");
        }
    }
    assert_eq!(world.text("rfc3339(NULL) IS NULL").await, "true");
}

#[tokio::test]
async fn merged_metadata_has_the_members_of_both_and_of_the_second_where_both_have_one() {
    let world = World::new().await;
    for (first, second, expected) in [
        ("{}", "{}", json!({})),
        (r#"{"a": 1}"#, "{}", json!({"a": 1})),
        ("{}", r#"{"a": 1}"#, json!({"a": 1})),
        (
            r#"{"a": 1, "b": {"x": 1}}"#,
            r#"{"b": {"y": 2}, "c": null}"#,
            json!({"a": 1, "b": {"y": 2}, "c": null}),
        ),
        (r#"{"a": 1}"#, r#"{"a": null}"#, json!({"a": null})),
        (r#"{"": "é\n", "A": 1}"#, r#"{"a": 2}"#, json!({"": "é\n", "A": 1, "a": 2})),
    ] {
        let answer = world
            .call("SELECT merged($1::text::json, $2::text::json)::text", &[&first, &second])
            .await
            .done();
        assert_eq!(answer, expected, "{first} {second}");
    }
}

#[tokio::test]
async fn merged_metadata_keeps_the_text_of_its_values_and_all_of_it_where_nothing_is_added() {
    let world = World::new().await;
    let object = r#"{ "b":1.0,"a" : "\u00e9\/","b":2 }"#;
    for (first, second) in [(object, "{}"), ("{}", object)] {
        let statement = "SELECT merged($1::text::json, $2::text::json)::text";
        let merged = world.client.query_one(statement, &[&first, &second]).await.expect("an object");
        assert_eq!(merged.get::<_, &str>(0), object);
    }
    let value = r#"{"b": 1.500,  "a": 123456789012345678901234567890}"#;
    let kept =
        world.text(&format!(r#"SELECT merged('{{"old": 1E2}}', '{{"new": {value}}}') -> 'new'"#)).await;
    assert_eq!(kept, value);
    assert_eq!(world.text(r#"SELECT merged('{"old": 1E2}', '{"new": 1}') -> 'old'"#).await, "1E2");
}

#[tokio::test]
async fn a_teams_groups_are_its_own_in_order_and_then_those_of_its_access_groups_each_once() {
    let world = World::new().await;
    for (name, groups) in [("all", vec!["Vision", "Chat", "Code"]), ("some", vec!["Code", "Vision"])] {
        let statement = "SELECT create_model_access_group($1, $1, NULL, $2, NULL)::text";
        world.call(statement, &[&name, &groups]).await.done();
    }
    for (own, access, expected) in [
        (json!(["Chat", "Vision"]), json!([]), json!(["Chat", "Vision"])),
        (json!(["Vision", "Chat"]), json!([]), json!(["Vision", "Chat"])),
        (json!([]), json!(["all"]), json!(["Vision", "Chat", "Code"])),
        (json!([]), json!(["some", "all"]), json!(["Code", "Vision", "Chat"])),
        (json!(["Chat"]), json!(["some"]), json!(["Chat", "Code", "Vision"])),
        (json!(["Code", "Code", "Chat"]), json!(["all"]), json!(["Code", "Chat", "Vision"])),
        (json!([]), json!([]), json!([])),
    ] {
        let team = world.team_with(0, json!({"model_groups": own, "access_groups": access})).await;
        let statement = "SELECT coalesce(json_agg(g ->> 'group_name'), '[]')::text
                         FROM json_array_elements(list_team_model_groups($1, 10, 0) -> 'model_groups') g";
        let answer = world.call(statement, &[&team.id]).await.done();
        assert_eq!(answer, expected, "own {own}, by access groups {access}");
    }
}

#[tokio::test]
async fn allowed_models_are_those_of_all_groups_each_once_best_first() {
    let world = World::new().await;
    let team = world.team_with(0, json!({"model_groups": ["Code", "Chat", "Vision"]})).await;
    let answer = world.call("SELECT allowed_models($1)::text", &[&team.id]).await.done();
    assert_eq!(answer, json!(["second", "third", "first", "fourth"]));
}

#[tokio::test]
async fn refills_are_due_whole_periods_after_the_start_in_utc_and_a_31st_comes_back_after_a_shorter_month() {
    let world = World::new().await;
    world.run("SET TIME ZONE 'America/New_York'").await.done();
    for (start, period, number, due) in [
        ("2027-01-31 12:00:00Z", "monthly", 1, "2027-02-28T12:00:00.000000Z"),
        ("2027-01-31 12:00:00Z", "monthly", 2, "2027-03-31T12:00:00.000000Z"),
        ("2027-01-31 23:30:00Z", "monthly", 13, "2028-02-29T23:30:00.000000Z"),
        // Over the days on which clocks are changed there.
        ("2027-03-13 12:00:00Z", "daily", 2, "2027-03-15T12:00:00.000000Z"),
        ("2027-10-31 03:00:00Z", "weekly", 2, "2027-11-14T03:00:00.000000Z"),
    ] {
        let time = world.text(&format!("SELECT rfc3339(refill_time('{start}', '{period}', {number}))")).await;
        assert_eq!(time, due, "{start} {period} {number}");
    }
}
