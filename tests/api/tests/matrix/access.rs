//! Who may call.

use crate::{
    recipes::recipe,
    world::{Stage, World, assert_allowed, assert_refused, send},
};
use api_tests::{Client, Options};
use openapi::{name, routes};
use shared::http::Access;

/// Everybody that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Persona {
    Nobody,
    MalformedAuthorization,
    WrongAdminKey,
    UnknownVirtualKey,
    SuspendedTeam,
    OtherTeam,
    OwnTeam,
    Admin,
}

impl Persona {
    const ALL: [Persona; 8] = [
        Persona::Nobody,
        Persona::MalformedAuthorization,
        Persona::WrongAdminKey,
        Persona::UnknownVirtualKey,
        Persona::SuspendedTeam,
        Persona::OtherTeam,
        Persona::OwnTeam,
        Persona::Admin,
    ];

    fn client(self, stage: &Stage, world: &World<'_>) -> Client {
        let app = &stage.app;
        match self {
            Persona::Nobody => app.nobody(),
            Persona::MalformedAuthorization => {
                app.client(Some(("authorization", format!("Basic {}", world.team.key))))
            }
            Persona::WrongAdminKey => app.client(Some(("x-admin-key", "wrong".into()))),
            Persona::UnknownVirtualKey => app.bearer("sk-unknown"),
            Persona::SuspendedTeam => stage.suspended.client.clone(),
            Persona::OtherTeam => stage.other.client.clone(),
            Persona::OwnTeam => world.team.client.clone(),
            Persona::Admin => app.admin(),
        }
    }

    /// How a route with this access refuses the persona; `None`: it doesn't. `to_others` is what it answers to teams
    /// that it is not about.
    fn refusal(self, access: Access, to_others: Option<(u16, &'static str)>) -> Option<(u16, &'static str)> {
        let unauthenticated = Some((401, "unauthenticated"));
        match (access, self) {
            (Access::Public, _) | (Access::Admin | Access::AdminOrTeam, Persona::Admin) => None,
            (Access::Admin, _) | (Access::Team, Persona::Admin) => unauthenticated,
            (Access::Team | Access::AdminOrTeam, persona) => match persona {
                Persona::SuspendedTeam => Some((403, "team_suspended")),
                Persona::OtherTeam => to_others,
                Persona::OwnTeam => None,
                _ => unauthenticated,
            },
        }
    }
}

#[tokio::test]
async fn every_route_is_open_to_those_that_it_is_declared_for_and_changes_nothing_for_others() {
    let stage = Stage::set(Options::default()).await;
    for (_, route) in routes() {
        let world = stage.world().await;
        let request = recipe(&name(&route), &world).await;
        let before = stage.app.database.everything().await;
        let mut allowed = vec![];
        for persona in Persona::ALL {
            match persona.refusal(route.access, request.to_others) {
                None => allowed.push(persona),
                Some(refusal) => {
                    let answer = send(&persona.client(&stage, &world), &route, &request, None).await;
                    assert_refused(&answer, &route, &format!("{persona:?}"), refusal);
                }
            }
        }
        assert_eq!(stage.app.database.everything().await, before, "{} changed something", name(&route));
        for persona in allowed {
            let world = stage.world().await;
            let request = recipe(&name(&route), &world).await;
            let answer = send(&persona.client(&stage, &world), &route, &request, None).await;
            assert_allowed(&answer, &route, &format!("{persona:?}"));
        }
    }
    stage.app.check_invariants().await;
}
