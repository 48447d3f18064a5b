//! Many requests at once.

use crate::{Answer, Session, World};
use std::sync::atomic::{AtomicUsize, Ordering};

const CONNECTIONS: usize = 16;

/// The sessions of a crowd.
pub struct Crowd(Vec<Session>);

impl World {
    /// Sixteen connections.
    pub async fn crowd(&self) -> Crowd {
        let mut sessions = vec![];
        for _ in 0..CONNECTIONS {
            sessions.push(self.session().await);
        }
        Crowd(sessions)
    }
}

impl Crowd {
    /// Makes requests `0..requests`, as many at once as there are connections. Answers the answers, in any order.
    pub async fn at_once(
        &self,
        requests: usize,
        request: impl AsyncFn(&Session, usize) -> Answer,
    ) -> Vec<Answer> {
        let next = AtomicUsize::new(0);
        let answers = futures::future::join_all(self.0.iter().map(async |session| {
            let mut answers = vec![];
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return answers;
                }
                answers.push(request(session, number).await);
            }
        }));
        answers.await.into_iter().flatten().collect()
    }
}
