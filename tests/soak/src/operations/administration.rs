//! What the admin does with teams and keys. One at a time in each team, so that it is known which key is the newest.

use crate::{
    driver::{Intent, Round, forgetful, window},
    history::{By, Heard, Kind, now},
    model::{Interval, KeyLife, Suspension},
    team::{Key, lock},
};
use fastrand::Rng;
use reqwest::Method;
use serde_json::{Value, json};
use std::{sync::atomic::Ordering, time::Duration};

impl Round {
    pub(super) fn administer(
        &self,
        kind: Kind,
        team: usize,
        method: Method,
        what: &str,
        body: Value,
    ) -> Intent {
        let path = format!("/api/teams/{}/{what}", self.teams[team].id);
        Intent { method, repeatable: true, ..self.intent(kind, team, By::Admin, path, body) }
    }

    pub(super) async fn suspend_and_resume(&self, team: usize, random: &mut Rng) {
        let _one_at_a_time = self.teams[team].administration.lock().await;
        self.look_everywhere(team, By::Key(self.newest_key(team).0)).await;
        let start = now();
        let suspend = self.administer(Kind::Suspend, team, Method::PUT, "suspend", json!({}));
        let heard = self.ask(&suspend, random).await;
        let (began, known_at) = (window(start, &heard), forgetful(start, &heard));
        self.try_everywhere(team, By::Key(self.newest_key(team).0)).await;
        if self.teams[team].refill.is_some() {
            self.let_period_pass(team).await;
        }
        tokio::time::sleep(Duration::from_millis(random.u64(20..300))).await;
        let start = now();
        let resume = self.administer(Kind::Resume, team, Method::PUT, "resume", json!({}));
        let ended = window(start, &self.ask(&resume, random).await);
        self.suspended(team, Suspension { began, ended, known_at });
    }

    pub(super) async fn rotate(&self, team: usize, random: &mut Rng) {
        let _one_at_a_time = self.teams[team].administration.lock().await;
        let (number, old) = self.newest_key(team);
        let grace = random.i64(-2..3).max(0);
        self.look_everywhere(team, By::Key(number)).await;
        let start = now();
        self.teams[team].revoking(number, start, grace * 1_000_000);
        let body = json!({"grace_seconds": grace, "key_id": old.id});
        let rotate = self.administer(Kind::Rotate, team, Method::POST, "keys/rotate", body);
        let heard = self.ask(&rotate, random).await;
        if self.take_key(team, &heard) {
            let revoked = Some((Interval::new(start, now()), grace * 1_000_000));
            self.teams[team].revoked(number, KeyLife { revoked, known_at: forgetful(start, &heard) });
            self.try_everywhere(team, By::Key(number)).await;
        }
    }

    pub(super) async fn revoke(&self, team: usize, random: &mut Rng) {
        let _one_at_a_time = self.teams[team].administration.lock().await;
        let (number, old) = self.newest_key(team);
        let create = self.administer(Kind::Rotate, team, Method::POST, "keys/create", json!({}));
        let heard = self.ask(&create, random).await;
        if !self.take_key(team, &heard) {
            return;
        }
        self.look_everywhere(team, By::Key(number)).await;
        let start = now();
        self.teams[team].revoking(number, start, 0);
        let revoke =
            self.administer(Kind::Revoke, team, Method::DELETE, &format!("keys/{}", old.id), Value::Null);
        let heard = self.ask(&revoke, random).await;
        if heard.is_ok() {
            let revoked = Some((Interval::new(start, now()), 0));
            self.teams[team].revoked(number, KeyLife { revoked, known_at: forgetful(start, &heard) });
            self.try_everywhere(team, By::Key(number)).await;
        }
    }

    pub(super) fn newest_key(&self, team: usize) -> (usize, Key) {
        let keys = lock(&self.teams[team].keys);
        (keys.len() - 1, keys[keys.len() - 1].clone())
    }

    /// Whether the answer has a new key, which everybody then knows.
    pub(super) fn take_key(&self, team: usize, heard: &Heard) -> bool {
        let secret = heard.body["virtual_key"].as_str();
        let id = heard.body["key"]["key_id"].as_str().and_then(|id| id.parse().ok());
        let (Some(secret), Some(id), true) = (secret, id, heard.is_ok()) else {
            // Whoever goes on without a key is refused; that is no news.
            if heard.is_ok() {
                self.alarmed.store(true, Ordering::Relaxed);
            }
            return false;
        };
        lock(&self.teams[team].keys).push(Key { secret: secret.to_owned(), id, life: KeyLife::default() });
        true
    }
}
