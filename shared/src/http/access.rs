//! Who may call a route.
//!
//! Each kind of access is also a type, which the route's handler has as its state. The extractors that give the caller
//! exist only for the kinds that authenticate one, so that a handler that reads a team's data compiles on a route for
//! teams:
//!
//! ```
//! use shared::{error::Result, http::{Api, VisibleTeam, access}};
//!
//! #[utoipa::path(get, path = "/api/teams/{team_id}")]
//! async fn team(VisibleTeam(team_id): VisibleTeam) -> Result<String> {
//!     Ok(team_id.to_string())
//! }
//!
//! Api::new().route::<__path_team, _, _, access::AdminOrTeam>(team);
//! ```
//!
//! but not on a public route:
//!
//! ```compile_fail
//! use shared::{error::Result, http::{Api, VisibleTeam, access}};
//!
//! #[utoipa::path(get, path = "/api/teams/{team_id}")]
//! async fn team(VisibleTeam(team_id): VisibleTeam) -> Result<String> {
//!     Ok(team_id.to_string())
//! }
//!
//! Api::new().route::<__path_team, _, _, access::Public>(team);
//! ```

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without a key.
    Public,
    /// The admin.
    Admin,
    /// A team, with its virtual key.
    Team,
    /// The admin or a team. A request with an `X-Admin-Key` is authenticated as the admin's.
    AdminOrTeam,
}

/// A kind of access as a type.
pub trait Kind: Copy + Default + Send + Sync + 'static {
    /// The same kind as a value.
    const ACCESS: Access;
}

/// A kind of access that authenticates the caller.
pub trait Authenticated: Kind {}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $(: $authenticated:ident)?),* $(,)?) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default)]
        pub struct $name;

        impl Kind for $name {
            const ACCESS: Access = Access::$name;
        }

        $(impl $authenticated for $name {})?
    )* };
}

kinds! {
    /// [`Access::Public`].
    Public,
    /// [`Access::Admin`].
    Admin: Authenticated,
    /// [`Access::Team`].
    Team: Authenticated,
    /// [`Access::AdminOrTeam`].
    AdminOrTeam: Authenticated,
}
