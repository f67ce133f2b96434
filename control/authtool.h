/* weirctl auth: lines for the password file, and a check of the file. Never shows a password, and takes none from the command line, where others could see it. */
#ifndef WEIR_CONTROL_AUTHTOOL_H
#define WEIR_CONTROL_AUTHTOOL_H

/* argv[0] is "auth". Gives the exit code; 2: usage. */
int auth_tool(int argc, char **argv);

#endif
