//! The closed sets of words in the API: statuses, modes, kinds.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};

/// One of a closed set of words.
pub trait Word: Copy {
    /// The word itself.
    fn word(self) -> &'static str;
}

/// An enum whose variants are words, the same in JSON, in the documentation and in the database.
macro_rules! words {
    ($(#[doc = $doc:literal] $name:ident {
        $(#[doc = $meaning:literal] $variant:ident = $word:literal $(| $alias:literal)*,)*
    })*) => { $(
        #[doc = $doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub enum $name {
            $(#[doc = $meaning] #[serde(rename = $word)] $variant),*
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let description = concat!($doc, $("\n* `", $word, "`:", $meaning,)*);
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some(description.trim_start()))
                    .enum_values(Some([$($word),*]))
                    .into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }

        impl $name {
            /// All of them, in the order in which they are listed.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

        }

        impl Word for $name {
            fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word),*
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                match text.as_str() {
                    $($word $(| $alias)* => Ok($name::$variant),)*
                    _ => Err(expected(&[$($word),*])),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    )* };
}

words! {
    /// Where a job stands. `pending` and `in_progress` jobs are open; the others have ended.
    JobStatus {
        /// No call has been made in it.
        Pending = "pending",
        /// At least one call has been made in it.
        InProgress = "in_progress",
        /// It ended successfully.
        Completed = "completed",
        /// It failed.
        Failed = "failed",
        /// It was cancelled.
        Cancelled = "cancelled",
        /// Its deadline passed.
        Expired = "expired",
    }

    /// How a caller can end a job.
    FinalStatus {
        /// It ended successfully. Credits are deducted unless one of its calls failed, or all of them were refused.
        Completed = "completed",
        /// It failed. No credits are deducted, unless the team's `charge_when` is `delivered`.
        Failed = "failed",
        /// It was cancelled. No credits are deducted, unless the team's `charge_when` is `delivered`.
        Cancelled = "cancelled",
    }

    /// Where a call stands.
    CallStatus {
        /// It has not ended.
        Open = "open",
        /// A model answered.
        Succeeded = "succeeded",
        /// No model answered, through no fault of the caller.
        Failed = "failed",
        /// It was refused because of what the caller sent or has used up (a budget, a rate limit).
        Refused = "refused",
        /// The caller closed the connection, read nothing for too long, or the job ended first.
        Cancelled = "cancelled",
        /// Its end was not recorded before its deadline.
        Abandoned = "abandoned",
    }

    /// Whether a team's keys work.
    TeamStatus {
        /// The keys work.
        Active = "active",
        /// The keys are refused until the team is resumed.
        Suspended = "suspended",
        /// The keys are refused here, but the deletion is not finished in LiteLLM yet, or jobs are still to be ended.
        Deleting = "deleting",
        /// The keys are refused, here and by LiteLLM. The admin can still read the team.
        Deleted = "deleted",
    }

    /// Whether an organization or a group is in use.
    GroupStatus {
        /// It is in use.
        Active = "active",
    }

    /// Whether jobs can be created without available credits. `hard_limit` and `soft_limit` are accepted too.
    BudgetMode {
        /// A job can be created only while a credit is available.
        Hard = "hard" | "hard_limit",
        /// The balance may go below zero, as far as `credit_limit` allows.
        Soft = "soft" | "soft_limit",
    }

    /// How the credits for a job are counted.
    BillingMode {
        /// One credit for a job, whatever the number of its calls.
        JobBased = "job_based",
        /// The cost of its calls in LiteLLM, converted to credits and rounded up; at least one credit.
        ConsumptionUsd = "consumption_usd",
        /// The tokens of its calls, converted to credits and rounded up; at least one credit.
        ConsumptionTokens = "consumption_tokens",
    }

    /// Which jobs are charged.
    ChargeWhen {
        /// Jobs that were completed without a failed call.
        Completed = "completed",
        /// Also all other jobs in which a call delivered output, however they ended.
        Delivered = "delivered",
    }

    /// What an automatic refill does.
    RefillMode {
        /// It adds the amount, up to a remaining of `cap`.
        Add = "add",
        /// It makes the amount the remaining: a greater remaining expires.
        ResetTo = "reset_to",
    }

    /// Why a balance changed.
    TransactionType {
        /// The admin added credits.
        Allocation = "allocation",
        /// A job was charged.
        Deduction = "deduction",
        /// A charge was refunded.
        Refund = "refund",
        /// The admin corrected the balance, in either direction.
        Adjustment = "adjustment",
        /// An automatic refill added credits.
        Refill = "refill",
        /// Credits expired.
        Expiry = "expiry",
    }

    /// How often credits are refilled. A monthly refill of the 31st comes on the last day of shorter months.
    RefillPeriod {
        /// Every day.
        Daily = "daily",
        /// Every seven days.
        Weekly = "weekly",
        /// Every month.
        Monthly = "monthly",
    }

    /// What an alert is about.
    AlertKind {
        /// 80 % of the credits are used.
        Credits80Percent = "credits_80_percent",
        /// All credits are used.
        Credits100Percent = "credits_100_percent",
        /// The team was suspended.
        TeamSuspended = "team_suspended",
        /// LiteLLM has no price for a model whose cost a job is charged by.
        UnpricedModel = "unpriced_model",
    }

    /// Where an alert's delivery to a webhook stands.
    AlertStatus {
        /// It is not sent, since its team had no `webhook_url`.
        None = "none",
        /// It is sent, or will be sent again.
        Due = "due",
        /// The receiver accepted it.
        Delivered = "delivered",
        /// The receiver did not accept it in 20 attempts.
        Undelivered = "undelivered",
    }
}

impl From<FinalStatus> for JobStatus {
    fn from(status: FinalStatus) -> Self {
        match status {
            FinalStatus::Completed => JobStatus::Completed,
            FinalStatus::Failed => JobStatus::Failed,
            FinalStatus::Cancelled => JobStatus::Cancelled,
        }
    }
}

fn expected(words: &[&str]) -> String {
    match words {
        [one, other] => format!("expected {one} or {other}"),
        _ => format!("expected one of {}", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_the_same_in_json_and_in_the_database() {
        for status in JobStatus::ALL {
            assert_eq!(serde_json::to_string(status).unwrap(), format!("\"{}\"", status.word()));
            assert_eq!(serde_json::from_str::<JobStatus>(&format!("\"{status}\"")).unwrap(), *status);
        }
        assert_eq!(BudgetMode::try_from("soft_limit".to_owned()), Ok(BudgetMode::Soft));
        assert_eq!(BudgetMode::try_from("x".to_owned()).unwrap_err(), "expected hard or soft");
    }
}
