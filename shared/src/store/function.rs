//! Calls of the functions of `migrations/`.

use super::{
    database::query,
    parameters::{Argument, Parameters},
};
use crate::error::Result;
use serde::de::DeserializeOwned;

/// A call of a function, in named notation: a parameter that was renamed, or is given to a function that has none of that name, is an
/// error and no other value.
pub struct Function {
    name: &'static str,
    arguments: Vec<Argument>,
    repeatable: bool,
}

/// A call of a function of `migrations/`. What a parameter takes is said in [`store::parameters`](crate::store::parameters):
///
/// ```
/// use shared::{function, values::{CallId, JobId}};
///
/// let (job, call) = (JobId::new_v7(), CallId::new_v7());
/// function!(settle_call(p_job_id: job, p_call_id: call));
/// ```
///
/// So no id can stand in another's place:
///
/// ```compile_fail
/// use shared::{function, values::{CallId, JobId}};
///
/// let (job, call) = (JobId::new_v7(), CallId::new_v7());
/// function!(settle_call(p_job_id: call, p_call_id: job));
/// ```
///
/// and no parameter can be given that no function has:
///
/// ```compile_fail
/// use shared::{function, values::JobId};
///
/// function!(settle_call(p_job: JobId::new_v7()));
/// ```
#[macro_export]
macro_rules! function {
    ($name:ident($($parameter:ident: $value:expr),* $(,)?)) => {
        $crate::store::Function::new(
            stringify!($name),
            vec![$($crate::store::parameters::$parameter($value)),*],
        )
    };
}

impl Function {
    /// See [`function!`](crate::function!).
    pub fn new(name: &'static str, arguments: Vec<Argument>) -> Self {
        Self { name, arguments, repeatable: false }
    }

    /// The same where a second time does no harm, since it finds what the first has done: then a lost answer is no reason to give up.
    pub fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    pub(super) fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// Runs it by itself.
    pub async fn run<T: DeserializeOwned>(self) -> Result<T> {
        let repeatable = self.repeatable;
        let mut parameters = Parameters::default();
        let call = self.expression(&mut parameters);
        query(format!("SELECT {call}::text AS answer"), parameters, repeatable).await?.read()
    }

    /// The call as it stands in a statement, to whose parameters it adds its own.
    pub(super) fn expression(self, parameters: &mut Parameters) -> String {
        let arguments: Vec<String> =
            self.arguments.into_iter().map(|argument| parameters.push(argument)).collect();
        format!("{}({})", self.name, arguments.join(", "))
    }
}
