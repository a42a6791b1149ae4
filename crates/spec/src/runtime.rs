use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a sandbox is isolated. Asked for by the user, never weakened. Weaker comes before stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Linux namespaces and cgroups on the shared kernel.
    #[default]
    Default,
    /// User-namespace remapping, virtual /proc and /sys, on the shared kernel.
    Sysbox,
    /// A kernel of its own in a virtual machine.
    Microvm,
}

impl Runtime {
    /// All, the weakest first.
    pub const ALL: [Self; 3] = [Self::Default, Self::Sysbox, Self::Microvm];

    /// What can carry it out, the one that is preferred first.
    pub fn handlers(self) -> impl Iterator<Item = Handler> {
        Handler::ALL.into_iter().filter(move |handler| handler.runtime() == self)
    }
}

/// What carries a runtime out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Handler {
    /// `default/native`: our own code.
    #[serde(rename = "default/native")]
    DefaultNative,
    /// `sysbox/native`: our own code, with user namespaces.
    #[serde(rename = "sysbox/native")]
    SysboxNative,
    /// `sysbox/sysbox-runc`: Sysbox, where it is installed and runs.
    #[serde(rename = "sysbox/sysbox-runc")]
    SysboxRunc,
    /// `microvm/qemu`.
    #[serde(rename = "microvm/qemu")]
    MicrovmQemu,
    /// `microvm/firecracker`.
    #[serde(rename = "microvm/firecracker")]
    MicrovmFirecracker,
    /// `microvm/cloud-hypervisor`.
    #[serde(rename = "microvm/cloud-hypervisor")]
    MicrovmCloudHypervisor,
}

impl Handler {
    /// All; of one runtime's, the one that is preferred first.
    pub const ALL: [Self; 6] = [
        Self::DefaultNative,
        Self::SysboxNative,
        Self::SysboxRunc,
        Self::MicrovmQemu,
        Self::MicrovmFirecracker,
        Self::MicrovmCloudHypervisor,
    ];

    /// The runtime that it carries out.
    pub fn runtime(self) -> Runtime {
        match self {
            Self::DefaultNative => Runtime::Default,
            Self::SysboxNative | Self::SysboxRunc => Runtime::Sysbox,
            Self::MicrovmQemu | Self::MicrovmFirecracker | Self::MicrovmCloudHypervisor => Runtime::Microvm,
        }
    }
}

/// What a project asks for: a runtime, and what is to carry it out if that matters. As text `sysbox` or
/// `sysbox/native`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RuntimeChoice {
    /// Any handler of this runtime: the first of [`Runtime::handlers`] that works.
    Any(Runtime),
    /// This handler and no other.
    Only(Handler),
}

impl RuntimeChoice {
    /// How the sandbox is isolated, whatever carries it out.
    pub fn runtime(self) -> Runtime {
        match self {
            Self::Any(runtime) => runtime,
            Self::Only(handler) => handler.runtime(),
        }
    }

    /// What may carry it out, the one that is preferred first.
    pub fn handlers(self) -> impl Iterator<Item = Handler> {
        self.runtime().handlers().filter(move |handler| match self {
            Self::Any(_) => true,
            Self::Only(only) => only == *handler,
        })
    }

    /// Every choice there is.
    pub fn all() -> impl Iterator<Item = Self> {
        Runtime::ALL.into_iter().map(Self::Any).chain(Handler::ALL.into_iter().map(Self::Only))
    }
}

impl Default for RuntimeChoice {
    fn default() -> Self {
        Runtime::default().into()
    }
}

impl From<Runtime> for RuntimeChoice {
    fn from(runtime: Runtime) -> Self {
        Self::Any(runtime)
    }
}

impl From<Handler> for RuntimeChoice {
    fn from(handler: Handler) -> Self {
        Self::Only(handler)
    }
}

/// What may run the instructions of microVMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// KVM where it works; else QEMU alone runs guests, by its translator.
    #[default]
    Auto,
    /// KVM and nothing else.
    Kvm,
    /// QEMU's translator, also where KVM works.
    Tcg,
}

impl Accel {
    /// All.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Kvm, Self::Tcg];

    /// As a word on a command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What runs the instructions of a microVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor, through KVM.
    Kvm,
    /// QEMU's translator: ten to fifty times slower, and the boundary is a program's and not the processor's.
    Tcg,
}

/// A runtime that Garth does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown runtime {0:?}: use default, sysbox or microvm")]
pub struct UnknownRuntime(String);

impl FromStr for Runtime {
    type Err = UnknownRuntime;

    fn from_str(text: &str) -> Result<Self, UnknownRuntime> {
        let found = Self::ALL.into_iter().find(|runtime| runtime.to_string() == text);
        found.ok_or_else(|| UnknownRuntime(text.to_owned()))
    }
}

/// A runtime or handler that Garth does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown runtime {0:?}: use one of {all}", all = choices())]
pub struct UnknownChoice(String);

fn choices() -> String {
    RuntimeChoice::all().map(|choice| choice.to_string()).collect::<Vec<_>>().join(", ")
}

impl FromStr for RuntimeChoice {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, UnknownChoice> {
        Self::all().find(|choice| choice.to_string() == text).ok_or_else(|| UnknownChoice(text.to_owned()))
    }
}

impl TryFrom<String> for RuntimeChoice {
    type Error = UnknownChoice;

    fn try_from(text: String) -> Result<Self, UnknownChoice> {
        text.parse()
    }
}

impl From<RuntimeChoice> for String {
    fn from(choice: RuntimeChoice) -> Self {
        choice.to_string()
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Sysbox => "sysbox",
            Self::Microvm => "microvm",
        })
    }
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DefaultNative => "default/native",
            Self::SysboxNative => "sysbox/native",
            Self::SysboxRunc => "sysbox/sysbox-runc",
            Self::MicrovmQemu => "microvm/qemu",
            Self::MicrovmFirecracker => "microvm/firecracker",
            Self::MicrovmCloudHypervisor => "microvm/cloud-hypervisor",
        })
    }
}

impl fmt::Display for RuntimeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(runtime) => runtime.fmt(f),
            Self::Only(handler) => handler.fmt(f),
        }
    }
}

#[cfg(feature = "openapi")]
mod openapi {
    use utoipa::openapi::schema::{ObjectBuilder, Type};
    use utoipa::openapi::{RefOr, Schema};
    use utoipa::{PartialSchema, ToSchema};

    use super::RuntimeChoice;

    impl PartialSchema for RuntimeChoice {
        fn schema() -> RefOr<Schema> {
            let words = RuntimeChoice::all().map(|choice| choice.to_string());
            let what = "What a project asks for: a runtime, and what is to carry it out if that matters.";
            let object =
                ObjectBuilder::new().schema_type(Type::String).description(Some(what)).enum_values(Some(words));
            object.into()
        }
    }

    impl ToSchema for RuntimeChoice {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stronger_runtime_is_greater() {
        assert!(Runtime::Default < Runtime::Sysbox && Runtime::Sysbox < Runtime::Microvm);
    }

    #[test]
    fn choices_are_words_and_handlers_are_of_the_runtime_that_they_name() {
        for choice in RuntimeChoice::all() {
            let word = choice.to_string();
            assert_eq!(word.parse(), Ok(choice));
            assert_eq!(word.split('/').next(), Some(choice.runtime().to_string().as_str()));
            let json = serde_json::to_string(&choice).expect("json");
            assert_eq!((json.as_str(), serde_json::from_str(&json).ok()), (format!("{word:?}").as_str(), Some(choice)));
        }
        for word in ["", "native", "sysbox/", "sysbox/qemu", "Sysbox", "docker"] {
            let refused = word.parse::<RuntimeChoice>().expect_err(word).to_string();
            assert!(refused.contains("sysbox/sysbox-runc"), "{refused}");
        }
    }

    #[test]
    fn a_handler_is_written_one_way() {
        for handler in Handler::ALL {
            assert_eq!(serde_json::to_string(&handler).ok(), Some(format!("\"{handler}\"")));
        }
    }

    #[test]
    fn our_own_code_is_preferred() {
        let of = |choice: RuntimeChoice| choice.handlers().collect::<Vec<_>>();
        assert_eq!(of(Runtime::Default.into()), [Handler::DefaultNative]);
        assert_eq!(of(Runtime::Sysbox.into()), [Handler::SysboxNative, Handler::SysboxRunc]);
        assert_eq!(of(Handler::SysboxRunc.into()), [Handler::SysboxRunc]);
    }
}
