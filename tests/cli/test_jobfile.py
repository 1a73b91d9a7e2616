"""Job files whose names would write outside projects/."""

import pytest

from mmpt.cli.jobfile import expand
from mmpt.errors import ConfigError


@pytest.mark.parametrize("name", ["/tmp/x", "../x", "a/../../x", "", 3, None])
@pytest.mark.parametrize("key", ["project_dir", "base_dir"])
def test_folders_stay_below_projects(key, name):
    values = {"project_dir": "mine", "base_dir": "task", key: name}
    with pytest.raises(ConfigError, match=rf"`{key}` must be a folder below projects/, but is "):
        list(expand("job.yaml", values))


@pytest.mark.parametrize("name", ["/x.yaml", "../x.yaml", 3])
def test_files_stay_below_their_folder(name):
    values = {"project_dir": "mine", "base_dir": "task", "task_group": {"all": {"task_list": [name]}}}
    with pytest.raises(ConfigError, match=r"`task_group\.all\.task_list` must be a list of file names"):
        list(expand("job.yaml", values))
