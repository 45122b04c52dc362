"""The one thing that pyproject.toml cannot say: a wheel carries the zoo, which lies beside the package, inside it.

An editable install and a plain checkout read the zoo where it is; `taskit.files.BUNDLED_ZOO` knows of both.
"""

from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build import build

ZOO, IN_THE_WHEEL = Path("zoo"), Path("taskit", "bundled_zoo")  # the latter is INSTALLED_ZOO in taskit/files.py
PARTS = ("backbones", "adapters", "catalog.json")  # not the scripts that made them


class BuildZoo(Command):
    """Copies the zoo into what the wheel is made of; the methods are those of setuptools' protocol SubCommand."""

    description = "copy the zoo into the package"
    user_options: list = []  # noqa: RUF012 - as Command declares it

    def initialize_options(self) -> None:
        self.build_lib = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        for built, source in self.get_output_mapping().items():
            self.mkpath(str(Path(built).parent))
            self.copy_file(source, built)

    def get_source_files(self) -> list[str]:
        """Relative to this file; what an sdist takes along."""
        found = (path for part in PARTS for path in (ZOO / part, *(ZOO / part).rglob("*")))
        return sorted(path.as_posix() for path in found if path.is_file())

    def get_outputs(self) -> list[str]:
        return list(self.get_output_mapping())

    def get_output_mapping(self) -> dict[str, str]:
        """Each file of the wheel and the one that it is a copy of; none in an editable install."""
        if self.editable_mode:
            return {}
        folder = Path(self.build_lib, IN_THE_WHEEL)
        return {str(folder / Path(source).relative_to(ZOO)): source for source in self.get_source_files()}


class Build(build):
    sub_commands = [*build.sub_commands, ("build_zoo", None)]  # noqa: RUF012 - as build declares it


setup(cmdclass={"build": Build, "build_zoo": BuildZoo})
