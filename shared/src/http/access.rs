//! Who may call a route.
//!
//! Each kind of access is also a type, which the route's handler has as its state. Extractors that give the caller
//! exist only for the kinds that authenticate one: a handler that reads a team's data does not compile on a public
//! route.

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
