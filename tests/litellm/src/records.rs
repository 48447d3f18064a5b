//! Teams and virtual keys as the stand-in keeps them, and as LiteLLM shows them.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A team. Amounts are USD; a limit of `None` is no limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TeamRecord {
    /// The team's id, chosen by the caller or made up.
    pub team_id: String,
    /// Its name; several teams may have the same.
    pub team_alias: Option<String>,
    /// LiteLLM's organization.
    pub organization_id: Option<String>,
    /// The models that the team may call; none listed means all of them.
    pub models: Vec<String>,
    /// Calls are refused once `spend` is above it.
    pub max_budget: Option<f64>,
    /// What calls with the team's keys have cost since the last reset.
    pub spend: f64,
    /// Whether all calls are refused.
    pub blocked: bool,
    /// A JSON object of the caller's.
    pub metadata: Value,
    /// Requests a minute over all keys of the team.
    pub rpm_limit: Option<i64>,
    /// Tokens a minute over all keys of the team.
    pub tpm_limit: Option<i64>,
    /// How often `spend` goes back to 0, such as `30d`.
    pub budget_duration: Option<String>,
    /// When it does so next.
    pub budget_reset_at: Option<DateTime<Utc>>,
    /// When the team was made.
    pub created_at: DateTime<Utc>,
    /// When the team was last changed.
    pub updated_at: DateTime<Utc>,
}

/// A virtual key. Amounts are USD; a limit of `None` is no limit. The key itself is nowhere kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// SHA-256 of the key in hexadecimal.
    pub token: String,
    /// The key's hint, `sk-...` and its last four letters.
    pub key_name: String,
    /// Its name, unique over all keys.
    pub key_alias: Option<String>,
    /// The team that it belongs to, which need not exist.
    pub team_id: Option<String>,
    /// LiteLLM's user.
    pub user_id: Option<String>,
    /// The models that the key may call; none listed means all that its team may call.
    pub models: Vec<String>,
    /// Calls are refused once `spend` has reached it.
    pub max_budget: Option<f64>,
    /// What calls with the key have cost since the last reset.
    pub spend: f64,
    /// What calls with the key have cost since it was made.
    pub total_spend: f64,
    /// Whether calls are refused; `None` until somebody says so.
    pub blocked: Option<bool>,
    /// A JSON object of the caller's.
    pub metadata: Value,
    /// Requests a minute.
    pub rpm_limit: Option<i64>,
    /// Tokens a minute.
    pub tpm_limit: Option<i64>,
    /// Calls at the same time.
    pub max_parallel_requests: Option<i64>,
    /// How often `spend` goes back to 0, such as `1d`.
    pub budget_duration: Option<String>,
    /// When it does so next.
    pub budget_reset_at: Option<DateTime<Utc>>,
    /// When the key stops working.
    pub expires: Option<DateTime<Utc>>,
    /// When the key was made.
    pub created_at: DateTime<Utc>,
    /// When the key was last changed.
    pub updated_at: DateTime<Utc>,
    /// When its settings were last changed; `None` for a key that is as it was made.
    pub settings_updated_at: Option<DateTime<Utc>>,
    /// When it was last used for a call.
    pub last_active: Option<DateTime<Utc>>,
    /// When it was deleted; a deleted key is still shown by `GET /key/info`.
    pub deleted_at: Option<DateTime<Utc>>,
}

/// What every team shows besides its own settings: features that the stand-in does not have.
const TEAM_CONSTANTS: &str = r#"{"admins":[],"members":[],"team_member_permissions":[],"tpd_limit":null,
"soft_budget":null,
"budget_limits":null,"router_settings":{},"access_group_ids":[],"default_team_member_models":[],
"max_parallel_requests":null,
"model_id":null,"model_spend":{},"model_max_budget":{},"policies":[],"allow_team_guardrail_config":false,
"litellm_model_table":null,"object_permission":null,"object_permission_id":null,
"members_with_roles":[{"user_id":"default_user_id","user_email":null,"role":"admin"}]}"#;

const TEAM_ROW_CONSTANTS: &str = r#"{"litellm_organization_table":null,"projects":null}"#;

const TEAM_INFO_CONSTANTS: &str = r#"{"team_member_budget_table":null,"access_group_models":null,
"access_group_mcp_server_ids":null,"access_group_agent_ids":null,"access_group_details":null,"organization_models":null,
"model_max_budget_usage":{}}"#;

/// What every key shows besides its own settings.
const KEY_CONSTANTS: &str = r#"{"soft_budget_cooldown":false,"aliases":{},"config":{},"router_settings":{},
"agent_id":null,
"project_id":null,"permissions":{},"tpd_limit":null,"allowed_cache_controls":[],"allowed_routes":[],
"key_type":"default",
"policies":[],"access_group_ids":[],"model_spend":{},"model_max_budget":{},"budget_fallbacks":{},"budget_id":null,
"organization_id":null,"object_permission_id":null,"created_by":"default_user_id","updated_by":"default_user_id",
"rotation_count":0,"auto_rotate":false,"rotation_interval":null,"last_rotation_at":null,"key_rotation_at":null,
"budget_limits":null,"litellm_budget_table":null,"litellm_organization_table":null,"litellm_project_table":null,
"object_permission":null,"jwt_key_mappings":null}"#;

/// What the answer to `/key/generate` shows besides the key's own settings.
const NEW_KEY_CONSTANTS: &str = r#"{"duration":null,"agent_id":null,"budget_limits":null,"allowed_cache_controls":[],
"config":{},
"permissions":{},"model_max_budget":{},"budget_fallbacks":{},"model_rpm_limit":null,"model_tpm_limit":null,
"mcp_rpm_limit":null,"tag_rpm_limit":null,"guardrails":null,"policies":null,"prompts":null,"aliases":{},
"object_permission":null,"tpd_limit":null,"default_estimated_output_tokens":null,
"default_estimated_output_tokens_per_model":null,"budget_id":null,"end_user_budget_id":null,"tags":null,
"disable_global_guardrails":null,"enable_prompt_caching":null,"throttle_on_budget_exceeded":null,"enforced_params":null,
"allowed_routes":[],"allowed_passthrough_routes":null,"denied_passthrough_routes":null,
"allowed_vector_store_indexes":null,
"rpm_limit_type":null,"tpm_limit_type":null,"router_settings":{"routing_strategy_args":null,"routing_strategy":null,
"routing_groups":null,"retry_policy":null,"model_group_retry_policy":null,"model_group_affinity_config":null,
"allowed_fails":null,"cooldown_time":null,"num_retries":null,"timeout":null,"max_retries":null,"retry_after":null,
"fallbacks":null,"context_window_fallbacks":null,"model_group_alias":{},"enable_tag_filtering":null,"weights":null,
"tag_routing_prefix":null,"optional_pre_call_checks":null},"access_group_ids":[],"key_type":"default",
"organization_id":null,"project_id":null,"litellm_budget_table":null,"created_by":"default_user_id",
"updated_by":"default_user_id"}"#;

/// How LiteLLM writes the offset of a time, which depends on the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    /// `2026-11-21T00:24:49.081000Z`
    Letter,
    /// `2026-11-21T00:24:49.081000+00:00`
    Number,
}

impl Zone {
    fn text(self, time: DateTime<Utc>) -> String {
        let milliseconds = DateTime::from_timestamp_millis(time.timestamp_millis()).unwrap_or(time);
        let form = if milliseconds.timestamp_subsec_millis() == 0 {
            SecondsFormat::Secs
        } else {
            SecondsFormat::Micros
        };
        milliseconds.to_rfc3339_opts(form, self == Zone::Letter)
    }

    fn json(self, time: Option<DateTime<Utc>>) -> Value {
        time.map_or(Value::Null, |time| json!(self.text(time)))
    }
}

impl TeamRecord {
    /// The team as `/team/new` answers it.
    pub(crate) fn created(&self) -> Value {
        let own = json!({
            "team_id": self.team_id, "team_alias": self.team_alias, "organization_id": self.organization_id,
            "metadata": self.metadata, "models": self.models, "max_budget": self.max_budget, "spend": self.spend,
            "blocked": self.blocked, "rpm_limit": self.rpm_limit, "tpm_limit": self.tpm_limit,
            "budget_duration": self.budget_duration, "budget_reset_at": Zone::Letter.json(self.budget_reset_at),
            "created_at": Zone::Letter.text(self.created_at), "updated_at": Zone::Letter.text(self.updated_at),
        });
        merged(&[TEAM_CONSTANTS], own)
    }

    /// The team as `/team/update`, `/team/block` and `/team/unblock` answer it.
    pub(crate) fn row(&self) -> Value {
        merged(&[TEAM_ROW_CONSTANTS], self.created())
    }

    /// The team as `/team/info` shows it to an admin or to one of its keys.
    pub(crate) fn info(&self, to_admin: bool) -> Value {
        let access = if to_admin { "unrestricted" } else { "none" };
        let mut value = merged(&[TEAM_INFO_CONSTANTS], self.created());
        value["caller_edit_access"] = json!({"kind": access});
        value["members_with_roles"][0]["user_alias"] = Value::Null;
        value
    }
}

impl KeyRecord {
    /// The key as `/key/generate` answers it, the only place where the key itself is shown.
    pub(crate) fn created(&self, key: &str) -> Value {
        let mut own = self.settings(Zone::Letter);
        own["key"] = json!(key);
        own["token_id"] = json!(self.token);
        own["token"] = json!(self.token);
        if let Some(object) = own.as_object_mut() {
            for absent in ["total_spend", "settings_updated_at", "last_active", "budget_reset_at"] {
                object.remove(absent);
            }
        }
        merged(&[NEW_KEY_CONSTANTS], own)
    }

    /// The key as lists and changes show it.
    pub(crate) fn row(&self, zone: Zone) -> Value {
        let mut own = self.settings(zone);
        own["token"] = json!(self.token);
        merged(&[KEY_CONSTANTS], own)
    }

    /// The key as `/key/block` answers it, read from another place than the rest.
    pub(crate) fn cached_row(&self) -> Value {
        let mut value = without_relations(self.row(Zone::Letter));
        if let Some(object) = value.as_object_mut() {
            object.remove("organization_id");
        }
        value
    }

    /// The key as `/key/info` shows it, without its hash and with its standing.
    pub(crate) fn info(&self, now: DateTime<Utc>) -> Value {
        let mut value = merged(&[KEY_CONSTANTS], self.settings(Zone::Number));
        value["status"] = json!(match (self.deleted_at, self.expires) {
            (Some(_), _) => "deleted",
            (None, Some(expires)) if expires <= now => "expired",
            _ => "active",
        });
        if self.deleted_at.is_some() {
            value = without_relations(value);
            value["id"] = json!(self.token);
            value["deleted_at"] = Zone::Number.json(self.deleted_at);
            value["deleted_by"] = json!("default_user_id");
            value["deleted_by_api_key"] = json!("litellm_proxy_master_key");
            value["litellm_changed_by"] = Value::Null;
        }
        value
    }

    fn settings(&self, zone: Zone) -> Value {
        json!({
            "key_name": self.key_name, "key_alias": self.key_alias, "team_id": self.team_id, "user_id": self.user_id,
            "models": self.models, "max_budget": self.max_budget, "spend": self.spend, "total_spend": self.total_spend,
            "blocked": self.blocked, "metadata": self.metadata, "rpm_limit": self.rpm_limit,
            "tpm_limit": self.tpm_limit,
            "max_parallel_requests": self.max_parallel_requests, "budget_duration": self.budget_duration,
            "budget_reset_at": zone.json(self.budget_reset_at), "expires": zone.json(self.expires),
            "created_at": zone.text(self.created_at), "updated_at": zone.text(self.updated_at),
            "settings_updated_at": zone.json(self.settings_updated_at), "last_active": zone.json(self.last_active),
        })
    }
}

/// A key's row without what LiteLLM joins to it from other tables.
fn without_relations(mut row: Value) -> Value {
    if let Some(object) = row.as_object_mut() {
        for joined in ["jwt_key_mappings", "litellm_organization_table", "litellm_project_table", "policies"]
        {
            object.remove(joined);
        }
    }
    row["org_id"] = Value::Null;
    row
}

/// An object with constant members added.
fn merged(constants: &[&str], own: Value) -> Value {
    let mut all = Map::new();
    for text in constants {
        let parsed: Map<String, Value> = serde_json::from_str(text).expect("the constants are JSON objects");
        all.extend(parsed);
    }
    if let Value::Object(own) = own {
        all.extend(own);
    }
    Value::Object(all)
}
