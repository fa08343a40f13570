//! The answer to each simulated call, read from the node's state.

use k8s_cri::v1;
use tonic::Status;

use super::filter;
use super::node::{ContainerEntry, Node, SandboxEntry, State};

impl Node {
    pub(super) fn answer_version(&self, _: &v1::VersionRequest) -> Result<v1::VersionResponse, Status> {
        Ok(self.lock().version.clone())
    }

    pub(super) fn answer_status(&self, request: &v1::StatusRequest) -> Result<v1::StatusResponse, Status> {
        let mut reply = self.lock().status.clone();
        if !request.verbose {
            reply.info.clear();
        }
        Ok(reply)
    }

    pub(super) fn answer_list_pod_sandbox(
        &self,
        request: &v1::ListPodSandboxRequest,
    ) -> Result<v1::ListPodSandboxResponse, Status> {
        let mut items: Vec<_> = self.lock().sandboxes.iter().map(|entry| entry.listed.clone()).collect();
        items.retain(|sandbox| filter::sandbox(request.filter.as_ref(), sandbox));
        Ok(v1::ListPodSandboxResponse { items })
    }

    pub(super) fn answer_list_containers(
        &self,
        request: &v1::ListContainersRequest,
    ) -> Result<v1::ListContainersResponse, Status> {
        let mut containers: Vec<_> = self.lock().containers.iter().map(|entry| entry.listed.clone()).collect();
        containers.retain(|container| filter::container(request.filter.as_ref(), container));
        Ok(v1::ListContainersResponse { containers })
    }

    pub(super) fn answer_pod_sandbox_status(
        &self,
        request: &v1::PodSandboxStatusRequest,
    ) -> Result<v1::PodSandboxStatusResponse, Status> {
        let mut reply = self.lock().sandbox(&request.pod_sandbox_id)?.status.clone();
        if !request.verbose {
            reply.info.clear();
        }
        Ok(reply)
    }

    pub(super) fn answer_container_status(
        &self,
        request: &v1::ContainerStatusRequest,
    ) -> Result<v1::ContainerStatusResponse, Status> {
        let mut reply = self.lock().container(&request.container_id)?.status.clone();
        if !request.verbose {
            reply.info.clear();
        }
        Ok(reply)
    }

    pub(super) fn answer_container_stats(
        &self,
        request: &v1::ContainerStatsRequest,
    ) -> Result<v1::ContainerStatsResponse, Status> {
        let stats = self.lock().container(&request.container_id)?.stats.clone();
        let no_task = || Status::not_found(format!("no running task found: task {} not found", request.container_id));
        Ok(v1::ContainerStatsResponse { stats: Some(stats.ok_or_else(no_task)?) })
    }

    pub(super) fn answer_list_container_stats(
        &self,
        request: &v1::ListContainerStatsRequest,
    ) -> Result<v1::ListContainerStatsResponse, Status> {
        let state = self.lock();
        let asked = |entry: &&ContainerEntry| filter::container_stats(request.filter.as_ref(), &entry.listed);
        let stats = state.containers.iter().filter(asked).filter_map(|entry| entry.stats.clone()).collect();
        Ok(v1::ListContainerStatsResponse { stats })
    }

    pub(super) fn answer_pod_sandbox_stats(
        &self,
        request: &v1::PodSandboxStatsRequest,
    ) -> Result<v1::PodSandboxStatsResponse, Status> {
        let stats = self.lock().sandbox(&request.pod_sandbox_id)?.stats.clone();
        let no_task = || Status::not_found(format!("no running task found: task {} not found", request.pod_sandbox_id));
        Ok(v1::PodSandboxStatsResponse { stats: Some(stats.ok_or_else(no_task)?) })
    }

    pub(super) fn answer_list_pod_sandbox_stats(
        &self,
        request: &v1::ListPodSandboxStatsRequest,
    ) -> Result<v1::ListPodSandboxStatsResponse, Status> {
        let state = self.lock();
        let asked = |entry: &&SandboxEntry| filter::sandbox_stats(request.filter.as_ref(), &entry.listed);
        let stats = state.sandboxes.iter().filter(asked).filter_map(|entry| entry.stats.clone()).collect();
        Ok(v1::ListPodSandboxStatsResponse { stats })
    }
}

impl State {
    fn sandbox(&self, id: &str) -> Result<&SandboxEntry, Status> {
        self.sandboxes
            .iter()
            .find(|entry| filter::is_id(&entry.listed.id, id))
            .ok_or_else(|| Status::not_found(format!("an error occurred when try to find sandbox {id:?}: not found")))
    }

    fn container(&self, id: &str) -> Result<&ContainerEntry, Status> {
        self.containers
            .iter()
            .find(|entry| filter::is_id(&entry.listed.id, id))
            .ok_or_else(|| Status::not_found(format!("an error occurred when try to find container {id:?}: not found")))
    }
}
