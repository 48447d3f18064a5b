//! The LiteLLM behind the application: the one that the environment names, or the stand-in.

use crate::{ports, processes, processes::Process, project, secret};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{env, fs::File, net::TcpStream, process::Command, time::Duration};

/// The stand-in's package and program.
pub const STAND_IN: &str = "litellm-stand-in";

/// Where LiteLLM is and how it is administered.
pub struct LiteLlm {
    /// Scheme, host and port.
    pub url: String,
    /// The key for LiteLLM's own admin routes.
    pub master_key: String,
    /// The models that a demo may use, the first one first.
    pub models: Vec<String>,
}

impl LiteLlm {
    /// What `LITELLM_URL` and `LITELLM_MASTER_KEY` name; `None` when neither is set.
    pub fn from_environment() -> Result<Option<LiteLlm>> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        match (variable("LITELLM_URL"), variable("LITELLM_MASTER_KEY")) {
            (None, None) => Ok(None),
            (Some(url), Some(master_key)) => {
                let url = url.trim_end_matches('/').to_owned();
                Ok(Some(LiteLlm { url, master_key, models: Vec::new() }))
            }
            (Some(_), None) => bail!("LITELLM_URL is set, but LITELLM_MASTER_KEY is not: set both or none"),
            (None, Some(_)) => bail!("LITELLM_MASTER_KEY is set, but LITELLM_URL is not: set both or none"),
        }
    }

    /// Asks LiteLLM for the models that it serves.
    pub fn find_models(&mut self) -> Result<()> {
        let url = format!("{}/v1/models", self.url);
        let mut answer = ureq::get(&url)
            .header("authorization", format!("Bearer {}", self.master_key))
            .config()
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .call()
            .with_context(|| format!("cannot ask LiteLLM for its models at {url}"))?;
        let answer: Value = answer.body_mut().read_json().with_context(|| format!("{url} gave no JSON"))?;
        let models = answer["data"].as_array().into_iter().flatten();
        self.models = models.filter_map(|model| model["id"].as_str().map(str::to_owned)).collect();
        if self.models.is_empty() {
            bail!("LiteLLM at {} serves no models", self.url);
        }
        Ok(())
    }

    /// Starts the stand-in, which keeps its teams and keys in `.data/`.
    pub fn start_stand_in() -> Result<(LiteLlm, Process)> {
        let data = project::data()?;
        let port = ports::free()?;
        let master_key = format!("sk-{}", secret::kept("stand-in-master-key")?);
        let log = File::create(data.join("stand-in.log")).context("cannot write .data/stand-in.log")?;
        let mut stand_in = Command::new(project::program(STAND_IN)?);
        stand_in
            .args(["--listen", &format!("127.0.0.1:{port}"), "--state"])
            .arg(data.join("stand-in.json"))
            .env("LITELLM_MASTER_KEY", &master_key)
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut process = Process::start("the LiteLLM stand-in", &mut stand_in)?;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = process.exit_status()? {
                bail!("the LiteLLM stand-in did not start ({status}): see .data/stand-in.log");
            }
            processes::pause(Duration::from_millis(50))?;
        }
        let models = ["gpt-4o-mini", "gpt-4o"].map(str::to_owned).to_vec();
        Ok((LiteLlm { url: format!("http://127.0.0.1:{port}"), master_key, models }, process))
    }
}
