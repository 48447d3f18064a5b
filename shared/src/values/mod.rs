//! Values that are valid once they exist. Reading one from JSON or from a path validates it: the failure says what is
//! wrong and what is allowed, and becomes a 400 that names the field.
//!
//! Uses no other module of this crate. All other modules may use it.

mod ids;
mod metadata;
mod money;
mod numbers;
mod schema;
mod text;
mod virtual_key;
mod words;

pub use ids::{
    AccessGroupName, AlertId, CallId, GroupName, JobId, KeyId, LiteLlmOrganizationId, OrganizationId, TeamId,
};
pub use metadata::{Metadata, check_storable};
pub use money::Usd;
pub use numbers::{Amount, CreditCount, Limit, TokenCount, Whole};
pub use text::{Label, Name, Prose, Text, shortened};
pub use virtual_key::VirtualKey;
pub use words::{
    AlertKind, AlertStatus, BillingMode, BudgetMode, CallStatus, ChargeWhen, FinalStatus, GroupStatus,
    JobStatus, RefillMode, RefillPeriod, TeamStatus, TransactionType, Word,
};
