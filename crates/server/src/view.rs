//! The engine's types as the wire has them.

use garth_api::{
    Addresses, Check, DiskUse, Ended, EndedReason, Finding, Image, ImageSource, Project, RuntimeReport, Usage,
    Verification, Verified,
};
use garth_engine::{ImageEntry, Inspection};
use garth_spec::ByteSize;

pub(crate) fn project(project: &garth_engine::Project) -> Project {
    let sandbox = project.sandbox.as_ref().filter(|_| project.state.has_sandbox());
    Project {
        name: project.name.clone(),
        id: project.id,
        state: project.state,
        ephemeral: project.ephemeral,
        spec: project.spec.clone(),
        image_id: project.image,
        runtime: RuntimeReport {
            requested: project.spec.runtime,
            effective: sandbox.map(|sandbox| sandbox.runtime),
            handler: sandbox.map(|sandbox| sandbox.handler),
            accelerator: sandbox.and_then(|sandbox| sandbox.accelerator()),
        },
        sandbox_id: sandbox.map(|sandbox| sandbox.id),
        pid: sandbox.and_then(|sandbox| sandbox.pid()),
        addresses: sandbox
            .and_then(|sandbox| sandbox.addresses)
            .map(|addresses| Addresses { ipv4: Some(addresses.ipv4), ipv6: addresses.ipv6 }),
        usage: None,
        disk: None,
        created_at: project.created_at,
        started_at: project.started_at,
        waiting: None,
        ended: project.ended.as_ref().map(ended),
        verified: project.verified.as_ref().map(verified),
    }
}

pub(crate) fn verified(verified: &garth_verify::Verified) -> Verified {
    Verified {
        at: verified.at,
        runtime: verified.runtime,
        passed: verified.failed.is_empty(),
        checks: u64::try_from(verified.checks).unwrap_or(u64::MAX),
        failed: verified.failed.clone(),
    }
}

pub(crate) fn verification(verification: garth_verify::Verification) -> Verification {
    let passed = verification.passed();
    let check = |check: garth_verify::Checked| Check {
        id: check.id.to_owned(),
        what: check.what.to_owned(),
        passed: check.passed,
        evidence: check.evidence,
    };
    Verification {
        runtime: verification.runtime,
        handler: verification.handler,
        passed,
        at: verification.at,
        checks: verification.checks.into_iter().map(check).collect(),
    }
}

pub(crate) fn inspection(inspection: &Inspection) -> Project {
    Project {
        usage: inspection.usage.map(|usage| Usage {
            memory: usage.memory,
            cpu_micros: usage.cpu_micros,
            pids: usage.pids,
            oom_kills: usage.oom_kills,
        }),
        disk: inspection.disk.map(|disk| DiskUse { used: Some(disk.used), limit: disk.limit.map(ByteSize::bytes) }),
        ..project(&inspection.project)
    }
}

fn ended(ended: &garth_engine::Ended) -> Ended {
    Ended {
        at: ended.at,
        reason: match ended.reason {
            garth_engine::EndedReason::Stopped => EndedReason::Stopped,
            garth_engine::EndedReason::Died => EndedReason::Died,
            garth_engine::EndedReason::Rebooted => EndedReason::Rebooted,
            garth_engine::EndedReason::RebootLoop => EndedReason::RebootLoop,
            garth_engine::EndedReason::PoweredOff => EndedReason::PoweredOff,
            garth_engine::EndedReason::Lost => EndedReason::Lost,
            garth_engine::EndedReason::StartFailed => EndedReason::StartFailed,
        },
        detail: ended.detail.clone(),
    }
}

/// An image, and how many of these projects began as it.
pub(crate) fn image(image: &ImageEntry, projects: &[std::sync::Arc<garth_engine::Project>]) -> Image {
    let used = projects.iter().filter(|project| project.image == Some(image.id)).count();
    Image {
        name: image.name.clone(),
        id: Some(image.id),
        source: match image.source {
            garth_engine::ImageSource::Builtin => ImageSource::Builtin,
            garth_engine::ImageSource::Imported => ImageSource::Imported,
        },
        config: image.config.clone(),
        size: image.size,
        created_at: Some(image.created_at),
        projects: u64::try_from(used).unwrap_or(u64::MAX),
    }
}

/// The built-in image of a daemon that has not used it yet.
pub(crate) fn host_image() -> Image {
    Image {
        name: garth_spec::ImageName::host(),
        id: None,
        source: ImageSource::Builtin,
        config: garth_spec::ImageConfig::default(),
        size: None,
        created_at: None,
        projects: 0,
    }
}

pub(crate) fn findings(findings: Vec<garth_engine::Finding>) -> Vec<Finding> {
    let finding =
        |found: garth_engine::Finding| Finding { name: found.name, ok: found.ok, detail: found.detail, fix: found.fix };
    findings.into_iter().map(finding).collect()
}
